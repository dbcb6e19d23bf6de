import type { Frame } from "../contracts.ts";

/** A frame for tests: particles at the given places, nm. */
export function frameOf(points: readonly (readonly number[])[], more: Partial<Frame> = {}): Frame {
  return {
    index: 1,
    serial: 1,
    topologySerial: 1,
    particleCount: points.length,
    positions: new Float32Array(points.flat()),
    elements: new Uint8Array(points.length).fill(6),
    bonds: new Uint32Array(),
    names: [],
    residues: new Uint32Array(),
    residueNames: [],
    residueIds: [],
    residueChains: new Uint32Array(),
    chainNames: [],
    box: null,
    userForceIndices: new Uint32Array(),
    userForces: new Float32Array(),
    values: {},
    receivedAt: 0,
    ...more,
  };
}
