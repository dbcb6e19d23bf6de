// Builds anew beside what the gateway serves, and says whether they are the same.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { build } from "vite";

const served = "../../services/gateway/src/narupa_gateway/web";
const fresh = mkdtempSync(join(tmpdir(), "narupa-web-"));

function files(folder) {
  const entries = readdirSync(folder, { recursive: true, withFileTypes: true });
  const names = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  return new Map(names.map((name) => [name.slice(folder.length + 1), readFileSync(name)]));
}

try {
  process.env["NARUPA_WEB_OUT"] = fresh;
  await build({ logLevel: "warn" });
  const [now, then] = [files(fresh), files(served)];
  const names = [...new Set([...now.keys(), ...then.keys()])].sort();
  const other = names.filter((name) => !now.has(name) || !then.has(name) || !now.get(name).equals(then.get(name)));
  for (const name of other) console.error(`${served}/${name} is not what the sources give`);
  if (other.length > 0) console.error("run `make web`, and commit what it has built");
  process.exitCode = other.length > 0 ? 1 : 0;
} finally {
  rmSync(fresh, { recursive: true, force: true });
}
