/** What is known of the simulation: each frame that comes is laid over those before it. */

import type { Frame } from "../contracts.ts";
import { bytes, floats, indices, texts } from "./wire.ts";

const NO_FLOATS = new Float32Array();
const NO_INDICES = new Uint32Array();
const NO_BYTES = new Uint8Array();
const NO_TEXTS: readonly string[] = [];

const TOPOLOGY = [
  "particle.count",
  "particle.elements",
  "particle.names",
  "particle.residues",
  "bond.pairs",
  "residue.names",
  "residue.ids",
  "residue.chains",
  "chain.names",
];

interface Topology {
  readonly elements: Uint8Array;
  readonly bonds: Uint32Array;
  readonly names: readonly string[];
  readonly residues: Uint32Array;
  readonly residueNames: readonly string[];
  readonly residueIds: readonly string[];
  readonly residueChains: Uint32Array;
  readonly chainNames: readonly string[];
}

export class FrameMerge {
  frame: Frame | null = null;
  #serial = 0;
  #topologySerial = 0;
  #fresh = false;
  #said: Record<string, unknown> = {};
  #topology: Topology = checkedTopology({}, 0);

  /** The next frame stands alone: what it does not say is not known. */
  startOver(): void {
    this.#fresh = true;
  }

  /** The frame that this message makes of the one before it. */
  apply(packed: Readonly<Record<string, unknown>>, receivedAt: number): Frame {
    const index = typeof packed["frame.index"] === "number" ? packed["frame.index"] : 1;
    const before = index === 0 || this.#fresh ? null : this.frame;
    this.#fresh = false;
    if (before === null) this.#said = {};
    const positions = "particle.positions" in packed ? wholeRows(floats(packed["particle.positions"])) : (before?.positions ?? NO_FLOATS);
    const particleCount = positions.length / 3;
    const grown = particleCount !== this.frame?.particleCount;
    let changed = before === null || grown;
    for (const key of TOPOLOGY) {
      if (!(key in packed)) continue;
      this.#said[key] = packed[key];
      changed = true;
    }
    if (changed) {
      const topology = checkedTopology(this.#said, particleCount);
      // What is said again, after a reset or over a new connection, is not another.
      if (grown || !sameTopology(topology, this.#topology)) {
        this.#topologySerial += 1;
        this.#topology = topology;
      }
    }
    const userForceIndices =
      "forces.user.index" in packed ? indices(packed["forces.user.index"]) : (before?.userForceIndices ?? NO_INDICES);
    const userForces = "forces.user.sparse" in packed ? floats(packed["forces.user.sparse"]) : (before?.userForces ?? NO_FLOATS);
    const felt = userForces.length === 3 * userForceIndices.length && userForceIndices.every((each) => each < particleCount);
    this.#serial += 1;
    this.frame = {
      index,
      serial: this.#serial,
      topologySerial: this.#topologySerial,
      particleCount,
      positions,
      ...this.#topology,
      box: "system.box.vectors" in packed ? boxOf(packed["system.box.vectors"]) : (before?.box ?? null),
      userForceIndices: felt ? userForceIndices : NO_INDICES,
      userForces: felt ? userForces : NO_FLOATS,
      values: valuesOf(before?.values, packed),
      receivedAt,
    };
    return this.frame;
  }
}

/** What was said of the topology, with nothing in it that points at a particle, residue or chain that there is not. */
function checkedTopology(said: Readonly<Record<string, unknown>>, particleCount: number): Topology {
  const residueNames = texts(said["residue.names"]);
  const chainNames = texts(said["chain.names"]);
  const residues = indices(said["particle.residues"]);
  const residueChains = indices(said["residue.chains"]);
  const residueCount = Math.max(residueNames.length, residueChains.length);
  const placed = residues.length === particleCount && residues.every((each) => each < residueCount);
  const chained = residueChains.length === residueCount;
  return {
    elements: sized(bytes(said["particle.elements"]), particleCount),
    bonds: checkedBonds(indices(said["bond.pairs"]), particleCount),
    names: texts(said["particle.names"]),
    residues: placed ? residues : NO_INDICES,
    residueNames: placed ? residueNames : NO_TEXTS,
    residueIds: placed ? texts(said["residue.ids"]) : NO_TEXTS,
    residueChains: placed && chained ? residueChains : NO_INDICES,
    chainNames: placed && chained ? chainNames : NO_TEXTS,
  };
}

function sameTopology(one: Topology, other: Topology): boolean {
  return (Object.keys(one) as (keyof Topology)[]).every((key) => {
    const [a, b] = [one[key], other[key]];
    if (a.length !== b.length) return false;
    for (let at = 0; at < a.length; at += 1) if (a[at] !== b[at]) return false;
    return true;
  });
}

function checkedBonds(pairs: Uint32Array, particleCount: number): Uint32Array {
  const even = pairs.length % 2 === 0 ? pairs : pairs.subarray(0, pairs.length - 1);
  if (even.every((each) => each < particleCount)) return even;
  const kept = new Uint32Array(even.length);
  let length = 0;
  for (let at = 0; at < even.length; at += 2) {
    const [first, second] = [even[at]!, even[at + 1]!];
    if (first >= particleCount || second >= particleCount) continue;
    kept[length] = first;
    kept[length + 1] = second;
    length += 2;
  }
  return kept.subarray(0, length);
}

function sized(elements: Uint8Array, count: number): Uint8Array {
  if (elements.length === count) return elements;
  const whole = count === 0 ? NO_BYTES : new Uint8Array(count);
  whole.set(elements.subarray(0, count));
  return whole;
}

function wholeRows(array: Float32Array): Float32Array {
  return array.length % 3 === 0 ? array : array.subarray(0, array.length - (array.length % 3));
}

function boxOf(item: unknown): Float32Array | null {
  const box = floats(item);
  return box.length === 9 && box.some((each) => each !== 0) ? box : null;
}

type Values = Readonly<Record<string, number | string | boolean>>;

function valuesOf(before: Values | undefined, packed: Readonly<Record<string, unknown>>): Values {
  const values: Record<string, number | string | boolean> = { ...before };
  for (const key in packed) {
    const value = packed[key];
    if (typeof value === "number" || typeof value === "string" || typeof value === "boolean") values[key] = value;
  }
  return values;
}
