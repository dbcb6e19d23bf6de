/** The viewer as the front end of the Python client's notebook widget: one module with everything in it. */

import { defineConfig } from "vite";

const WIDGET = "../python/src/narupa_client/notebook/static";

export default defineConfig({
  publicDir: false,
  build: {
    outDir: process.env["NARUPA_NOTEBOOK_OUT"] ?? WIDGET,
    emptyOutDir: true,
    target: "es2022",
    sourcemap: false,
    modulePreload: false,
    reportCompressedSize: true,
    chunkSizeWarningLimit: 900,
    rolldownOptions: {
      input: "src/notebook/index.ts",
      preserveEntrySignatures: "strict",
      output: { entryFileNames: "view.js", format: "es", codeSplitting: false },
    },
  },
});
