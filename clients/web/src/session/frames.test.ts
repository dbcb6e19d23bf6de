import { describe, expect, test } from "vitest";
import { FrameMerge } from "./frames.ts";

const packed = (array: Float32Array | Uint32Array) => new Uint8Array(array.buffer);
const positions = (count: number, value = 0) => packed(new Float32Array(3 * count).fill(value));

const WATER = {
  "frame.index": 0,
  "particle.positions": positions(3),
  "particle.count": 3,
  "particle.elements": new Uint8Array([8, 1, 1]),
  "particle.names": ["O", "H1", "H2"],
  "particle.residues": packed(new Uint32Array([0, 0, 0])),
  "residue.names": ["HOH"],
  "residue.ids": ["1"],
  "residue.chains": packed(new Uint32Array([0])),
  "chain.names": ["W"],
  "bond.pairs": packed(new Uint32Array([0, 1, 0, 2])),
  "system.simulation.name": "water",
};

describe("frames", () => {
  test("say what they hold", () => {
    const frame = new FrameMerge().apply(WATER, 12);
    expect(frame).toMatchObject({ index: 0, serial: 1, topologySerial: 1, particleCount: 3, receivedAt: 12, box: null });
    expect(Array.from(frame.bonds)).toEqual([0, 1, 0, 2]);
    expect(frame.names).toEqual(["O", "H1", "H2"]);
    expect(frame.values["system.simulation.name"]).toBe("water");
  });

  test("are laid over those before them", () => {
    const merge = new FrameMerge();
    const first = merge.apply(WATER, 0);
    const next = merge.apply({ "frame.index": 1, "particle.positions": positions(3, 0.5), "energy.kinetic": 2.5 }, 1);
    expect(next.elements).toBe(first.elements);
    expect(next.bonds).toBe(first.bonds);
    expect(next.topologySerial).toBe(1);
    expect(next.serial).toBe(2);
    expect(next.positions[0]).toBe(0.5);
    expect(next.values).toMatchObject({ "system.simulation.name": "water", "energy.kinetic": 2.5 });
    const only = merge.apply({ "frame.index": 2, "energy.kinetic": 3 }, 2);
    expect(only.positions).toBe(next.positions);
    expect(first.values["energy.kinetic"]).toBeUndefined();
  });

  test("with index 0 leave nothing of what was before them", () => {
    const merge = new FrameMerge();
    merge.apply({ ...WATER, "energy.potential": 5, "system.box.vectors": packed(new Float32Array(9).fill(1)) }, 0);
    const frame = merge.apply({ "frame.index": 0, "particle.positions": positions(2) }, 1);
    expect(frame).toMatchObject({ particleCount: 2, topologySerial: 2, names: [], residueNames: [], box: null });
    expect(Array.from(frame.elements)).toEqual([0, 0]);
    expect(frame.bonds).toHaveLength(0);
    expect(frame.values["energy.potential"]).toBeUndefined();
  });

  test("of a new connection stand alone, whatever their index", () => {
    const merge = new FrameMerge();
    merge.apply({ ...WATER, "energy.potential": 5 }, 0);
    merge.startOver();
    expect(merge.frame?.particleCount).toBe(3);
    const frame = merge.apply({ "frame.index": 7, "particle.positions": positions(1) }, 1);
    expect(frame.values["energy.potential"]).toBeUndefined();
    expect(frame.particleCount).toBe(1);
    expect(merge.apply({ "frame.index": 8, "energy.kinetic": 1 }, 2).particleCount).toBe(1);
  });

  test("that say the same topology again do not say that it is another", () => {
    const merge = new FrameMerge();
    const first = merge.apply(WATER, 0);
    merge.startOver();
    const again = merge.apply({ ...WATER, "frame.index": 9, "particle.elements": new Uint8Array([8, 1, 1]) }, 1);
    expect(again).toMatchObject({ topologySerial: 1, serial: 2 });
    expect(again.elements).toBe(first.elements);
    expect(merge.apply({ ...WATER, "particle.names": ["O", "H1", "H3"] }, 2).topologySerial).toBe(2);
    expect(merge.apply({ "frame.index": 0, "particle.positions": positions(3) }, 3).topologySerial).toBe(3);
  });

  test("with another topology, or another number of particles, say so", () => {
    const merge = new FrameMerge();
    merge.apply(WATER, 0);
    expect(merge.apply({ "frame.index": 1, "bond.pairs": packed(new Uint32Array([0, 1])) }, 1).topologySerial).toBe(2);
    expect(merge.apply({ "frame.index": 2, "particle.positions": positions(4) }, 2)).toMatchObject({ topologySerial: 3, particleCount: 4 });
  });

  test("hold nothing that points at particles, residues or chains that there are not", () => {
    const merge = new FrameMerge();
    const frame = merge.apply({ ...WATER, "bond.pairs": packed(new Uint32Array([0, 1, 1, 9, 2])), "particle.residues": packed(new Uint32Array([0, 0, 5])) }, 0);
    expect(Array.from(frame.bonds)).toEqual([0, 1]);
    expect(frame.residues).toHaveLength(0);
    expect(frame.residueNames).toEqual([]);
  });

  test("have users' forces that fit their particles, or none", () => {
    const merge = new FrameMerge();
    const forces = { "forces.user.index": packed(new Uint32Array([2])), "forces.user.sparse": packed(new Float32Array([1, 2, 3])) };
    expect(Array.from(merge.apply({ ...WATER, ...forces }, 0).userForces)).toEqual([1, 2, 3]);
    expect(merge.apply({ "frame.index": 1, "forces.user.index": packed(new Uint32Array([9])) }, 1).userForces).toHaveLength(0);
    expect(merge.apply({ "frame.index": 2, "forces.user.index": new Uint8Array(), "forces.user.sparse": new Uint8Array() }, 2).userForces).toHaveLength(0);
  });

  test("have a box of nine numbers that are not all 0, or none", () => {
    const merge = new FrameMerge();
    const box = new Float32Array([2, 0, 0, 0, 2, 0, 0, 0, 2]);
    expect(Array.from(merge.apply({ ...WATER, "system.box.vectors": packed(box) }, 0).box!)).toEqual(Array.from(box));
    expect(merge.apply({ "frame.index": 1, "system.box.vectors": packed(new Float32Array(9)) }, 1).box).toBeNull();
    expect(merge.apply({ "frame.index": 2, "system.box.vectors": [1, 2] }, 2).box).toBeNull();
  });
});
