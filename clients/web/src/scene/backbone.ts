/** The backbones of proteins: where they run, and which parts are helices and strands. */

import { isAminoAcid } from "./residues.ts";

/** What of a frame says where its backbones are. */
export interface BackboneSource {
  readonly particleCount: number;
  readonly positions: Float32Array;
  readonly elements: Uint8Array;
  readonly bonds: Uint32Array;
  readonly names: readonly string[];
  readonly residues: Uint32Array;
  readonly residueNames: readonly string[];
  readonly residueChains: Uint32Array;
}

/** One unbroken run of residues. */
export interface Trace {
  /** Particle of each residue's alpha carbon. */
  readonly alphas: Uint32Array;
  /** Particle of each residue's carbonyl oxygen; its alpha carbon where it has none. */
  readonly oxygens: Uint32Array;
  /** Residue indices. */
  readonly residues: Uint32Array;
}

export const COIL = 0;
export const HELIX = 1;
export const STRAND = 2;

/** Where bonds say nothing, residues whose alpha carbons are further apart (nm) are not of one trace. */
const LONGEST_STEP = 0.5;
/** Fewer residues make no ribbon. */
const SHORTEST_TRACE = 3;

/** All runs of at least three amino acids that are joined, in the order of the residues. */
export function findTraces(source: BackboneSource): Trace[] {
  const { names, residues, residueNames, elements } = source;
  const count = Math.min(source.particleCount, names.length, residues.length);
  const residueCount = residueNames.length;
  if (count === 0 || residueCount === 0) return [];
  const alpha = new Int32Array(residueCount).fill(-1);
  const oxygen = new Int32Array(residueCount).fill(-1);
  const carbonyl = new Int32Array(residueCount).fill(-1);
  const nitrogen = new Int32Array(residueCount).fill(-1);
  const amino = Uint8Array.from(residueNames, (name) => Number(isAminoAcid(name)));
  for (let particle = 0; particle < count; particle++) {
    const residue = residues[particle]!;
    if (residue >= residueCount) continue;
    const name = names[particle]!;
    if (name === "CA") {
      // A calcium ion has the same name as an alpha carbon.
      const element = elements[particle] ?? 0;
      if (element === 6 || (element === 0 && amino[residue] === 1)) alpha[residue] = particle;
    } else if (name === "C") carbonyl[residue] = particle;
    else if (name === "N") nitrogen[residue] = particle;
    else if (name === "O" || name === "OT1" || name === "O1") oxygen[residue] = particle;
  }
  const joined = residuesJoined(source, carbonyl, nitrogen);
  const traces: Trace[] = [];
  let run: number[] = [];
  const close = (): void => {
    if (run.length >= SHORTEST_TRACE) {
      traces.push({
        alphas: Uint32Array.from(run, (residue) => alpha[residue]!),
        oxygens: Uint32Array.from(run, (residue) => (oxygen[residue]! >= 0 ? oxygen[residue]! : alpha[residue]!)),
        residues: Uint32Array.from(run),
      });
    }
    run = [];
  };
  for (let residue = 0; residue < residueCount; residue++) {
    const protein = amino[residue] === 1 || (carbonyl[residue]! >= 0 && nitrogen[residue]! >= 0);
    if (alpha[residue]! < 0 || !protein) {
      close();
      continue;
    }
    const last = run.at(-1);
    if (last !== undefined) {
      const sameChain = (source.residueChains[last] ?? 0) === (source.residueChains[residue] ?? 0);
      const far = distance(source.positions, alpha[last]!, alpha[residue]!) > LONGEST_STEP;
      if (!sameChain || (joined ? joined[last] !== 1 : far)) close();
    }
    run.push(residue);
  }
  close();
  return traces;
}

/** For each residue, 1 where its carbonyl carbon is bonded to the next one's nitrogen; null where no bonds of that kind are known. */
function residuesJoined(source: BackboneSource, carbonyl: Int32Array, nitrogen: Int32Array): Uint8Array | null {
  const { bonds, residues } = source;
  const joined = new Uint8Array(carbonyl.length);
  let any = false;
  for (let at = 0; at + 1 < bonds.length; at += 2) {
    const first = bonds[at]!;
    const second = bonds[at + 1]!;
    const one = residues[first];
    const other = residues[second];
    if (one === undefined || other === undefined || one === other) continue;
    if (other === one + 1 && carbonyl[one] === first && nitrogen[other] === second) joined[one] = 1;
    else if (one === other + 1 && carbonyl[other] === second && nitrogen[one] === first) joined[other] = 1;
    else continue;
    any = true;
  }
  return any ? joined : null;
}

/**
 * Writes COIL, HELIX or STRAND for each residue of a trace, from distances between alpha carbons alone (the ranges are those of
 * Labesse et al., P-SEA, 1997). Helices shorter than five residues and strands shorter than three are coils.
 *
 * @param positions 3N, nm. @param structure as long as the trace, written to.
 */
export function assignStructure(positions: Float32Array, alphas: Uint32Array, structure: Uint8Array): void {
  const count = alphas.length;
  structure.fill(COIL);
  for (let at = 0; at + 4 < count; at++) {
    const second = distance(positions, alphas[at]!, alphas[at + 2]!);
    const third = distance(positions, alphas[at]!, alphas[at + 3]!);
    const fourth = distance(positions, alphas[at]!, alphas[at + 4]!);
    if (within(second, 0.55, 0.06) && within(third, 0.53, 0.075) && within(fourth, 0.64, 0.09)) {
      structure.fill(HELIX, at, at + 5);
    } else if (within(second, 0.67, 0.07) && within(third, 0.99, 0.11) && within(fourth, 1.24, 0.15)) {
      for (let of = at; of < at + 5; of++) if (structure[of] === COIL) structure[of] = STRAND;
    }
  }
  dropShortRuns(structure, HELIX, 5);
  dropShortRuns(structure, STRAND, 3);
}

function dropShortRuns(structure: Uint8Array, kind: number, shortest: number): void {
  let start = 0;
  for (let at = 0; at <= structure.length; at++) {
    if (at < structure.length && structure[at] === kind) continue;
    if (at > start && at - start < shortest) structure.fill(COIL, start, at);
    start = at + 1;
  }
}

function within(value: number, middle: number, tolerance: number): boolean {
  return Math.abs(value - middle) <= tolerance;
}

function distance(positions: Float32Array, one: number, other: number): number {
  const a = one * 3;
  const b = other * 3;
  const x = positions[a]! - positions[b]!;
  const y = positions[a + 1]! - positions[b + 1]!;
  const z = positions[a + 2]! - positions[b + 2]!;
  return Math.sqrt(x * x + y * y + z * z);
}
