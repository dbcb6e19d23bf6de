import { defineConfig } from "vitest/config";

const GATEWAY = "../../services/gateway/src/narupa_gateway/web";

export default defineConfig({
  build: {
    outDir: process.env["NARUPA_WEB_OUT"] ?? GATEWAY,
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    assetsInlineLimit: 0, // the page's security policy allows no data in addresses
    modulePreload: { polyfill: false },
    reportCompressedSize: true,
    chunkSizeWarningLimit: 900,
  },
  server: { host: "127.0.0.1", strictPort: true },
  test: { environment: "node", include: ["src/**/*.test.ts"] },
});
