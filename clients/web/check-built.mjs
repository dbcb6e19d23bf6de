// Builds anew beside what the gateway serves and what the Python client's widget shows, and says whether they are the same.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "vite";

const BUILDS = [
  { configFile: "vite.config.ts", variable: "NARUPA_WEB_OUT", folder: "../../services/gateway/src/narupa_gateway/web" },
  { configFile: "vite.notebook.config.ts", variable: "NARUPA_NOTEBOOK_OUT", folder: "../python/src/narupa_client/notebook/static" },
];

function files(folder) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const names = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(names.map((name) => [name.slice(folder.length + 1), readFileSync(name)]));
}

for (const { configFile, variable, folder } of BUILDS) {
  const fresh = mkdtempSync(join(tmpdir(), "narupa-web-"));
  try {
    process.env[variable] = fresh;
    await build({ configFile, logLevel: "warn" });
    const [now, then] = [files(fresh), files(folder)];
    const names = [...new Set([...now.keys(), ...then.keys()])].sort();
    const other = names.filter((name) => !now.has(name) || !then.has(name) || !now.get(name).equals(then.get(name)));
    for (const name of other) console.error(`${folder}/${name} is not what the sources give`);
    if (other.length > 0) process.exitCode = 1;
  } finally {
    rmSync(fresh, { recursive: true, force: true });
  }
}
if (process.exitCode === 1) console.error("run `make web`, and commit what it has built");
