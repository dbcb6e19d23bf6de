/** What is said about the simulation in a line of text. */

import type { Frame } from "../contracts.ts";

/** Name, residue and chain of a particle, as far as they are known. */
export function particleWords(frame: Frame, particle: number): string {
  if (particle < 0 || particle >= frame.particleCount) return "";
  const name = frame.names[particle] || "particle";
  const residue = frame.residues[particle];
  const parts = [`${name} (${particle})`];
  if (residue !== undefined) {
    const called = [frame.residueNames[residue], frame.residueIds[residue]].filter(Boolean).join(" ");
    if (called !== "") parts.push(called);
    const chain = frame.chainNames[frame.residueChains[residue] ?? -1];
    if (chain) parts.push(`chain ${chain}`);
  }
  return parts.join(" · ");
}

/** A simulated time, ps, with the unit in which it is read best. */
export function timeWords(ps: number): string {
  if (ps < 1) return `${(ps * 1000).toFixed(0)} fs`;
  if (ps < 1000) return `${ps.toFixed(2)} ps`;
  return ps < 1e6 ? `${(ps / 1000).toFixed(3)} ns` : `${(ps / 1e6).toFixed(4)} µs`;
}

/** Name, time and size of what is simulated. */
export function frameWords(frame: Frame): string {
  const name = frame.values["system.simulation.name"];
  const time = frame.values["system.simulation.time"];
  const parts = [typeof name === "string" && name !== "" ? name : "Simulation"];
  if (typeof time === "number" && Number.isFinite(time)) parts.push(timeWords(time));
  parts.push(`${frame.particleCount.toLocaleString("en")} particles`);
  return parts.join(" · ");
}
