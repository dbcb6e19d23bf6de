import { describe, expect, it } from "vitest";
import { HELIX, STRAND, type Trace } from "./backbone.ts";
import {
  FIRST_POINT,
  HAS_AFTER,
  HAS_BEFORE,
  LAST_POINT,
  PER_KNOT,
  ringCount,
  RibbonShape,
  SIDES,
  STEPS,
  writeTriangles,
  writeVertices,
} from "./ribbon-geometry.ts";

function helixTrace(residues: number): { trace: Trace; positions: Float32Array } {
  const turn = (100 * Math.PI) / 180;
  const positions = new Float32Array(residues * 6);
  for (let at = 0; at < residues; at++) {
    const place = [0.23 * Math.cos(at * turn), 0.23 * Math.sin(at * turn), 0.15 * at];
    positions.set(place, at * 6);
    positions.set([place[0]!, place[1]!, place[2]! + 0.2], at * 6 + 3);
  }
  const alphas = Uint32Array.from({ length: residues }, (_, at) => at * 2);
  return { trace: { alphas, oxygens: alphas.map((at) => at + 1), residues: alphas.map((at) => at / 2) }, positions };
}

function drawn(positions: Float32Array) {
  return { before: positions, after: positions, fraction: 1, count: positions.length / 3 };
}

/** A strand whose residues are a zigzag, and that runs on as a helix that begins far from it. */
function strandTrace(residues: number): { trace: Trace; positions: Float32Array } {
  const positions = new Float32Array(residues * 6);
  for (let at = 0; at < residues; at++) {
    const side = at % 2 === 0 ? 0.09 : -0.09;
    positions.set([0.33 * at, side, 0], at * 6);
    positions.set([0.33 * at, side, at % 2 === 0 ? 0.24 : -0.24], at * 6 + 3);
  }
  return { ...helixTrace(residues), positions };
}

function knotsOf(trace: Trace, positions: Float32Array, first = 0, room = trace.alphas.length): { shape: RibbonShape; knots: Float32Array } {
  const shape = new RibbonShape(trace);
  const knots = new Float32Array(room * PER_KNOT).fill(-7);
  shape.assign(positions);
  shape.write(drawn(positions), knots, first);
  return { shape, knots };
}

function part(knots: Float32Array, residue: number, from: number): number[] {
  return [...knots.subarray(residue * PER_KNOT + from, residue * PER_KNOT + from + 3)];
}

describe("RibbonShape", () => {
  it("has its knots where the alpha carbons are drawn, with directions of length 1 across", () => {
    const { trace, positions } = helixTrace(10);
    const { knots } = knotsOf(trace, positions);
    for (let at = 0; at < 10; at++) {
      part(knots, at, 0).forEach((value, axis) => expect(value).toBeCloseTo(positions[at * 6 + axis]!, 5));
      expect(Math.hypot(...part(knots, at, 4))).toBeCloseTo(1, 4);
    }
  });

  it("is between two frames where the particles are", () => {
    const { trace, positions } = helixTrace(5);
    const shape = new RibbonShape(trace);
    const knots = new Float32Array(5 * PER_KNOT);
    shape.write({ before: positions, after: positions.map((value) => value + 1), fraction: 0.25, count: 10 }, knots, 0);
    expect(knots[0]).toBeCloseTo(positions[0]! + 0.25);
  });

  it("is wide along the axis of a helix and flat around it", () => {
    const { trace, positions } = helixTrace(10);
    const { shape, knots } = knotsOf(trace, positions);
    expect(shape.structure[4]).toBe(HELIX);
    expect(Math.abs(part(knots, 4, 4)[2]!)).toBeGreaterThan(0.8);
    expect(knots[4 * PER_KNOT + 3]).toBeGreaterThan(3 * knots[4 * PER_KNOT + 7]!);
  });

  it("takes the zigzag out of a strand, does not turn over with it, and ends it in one arrow", () => {
    const { trace, positions } = strandTrace(9);
    positions.set([positions[6 * 8]!, 3, 0], 6 * 8); // the last residue is no longer of the strand
    const { shape, knots } = knotsOf(trace, positions);
    expect(shape.structure[4]).toBe(STRAND);
    for (let at = 2; at < 6; at++) {
      expect(Math.abs(part(knots, at, 0)[1]!)).toBeLessThan(0.01);
      const [one, other] = [part(knots, at, 4), part(knots, at + 1, 4)];
      expect(one.reduce((sum, value, axis) => sum + value * other[axis]!, 0)).toBeGreaterThan(0.5);
    }
    const arrows = Array.from({ length: 9 }, (_, at) => at).filter((at) => knots[at * PER_KNOT + 7]! < 0);
    expect(arrows).toEqual([shape.structure.lastIndexOf(STRAND)]);
  });

  it("grows into another shape while it is drawn", () => {
    const { trace, positions } = helixTrace(10);
    const { shape, knots } = knotsOf(trace, positions);
    const wide = knots[4 * PER_KNOT + 3]!;
    const straight = strandTrace(10).positions.map((value, at) => (at % 6 === 0 ? value * 3 : value));
    shape.assign(straight);
    shape.write(drawn(straight), knots, 0);
    const next = knots[4 * PER_KNOT + 3]!;
    expect(next).toBeLessThan(wide);
    for (let frame = 0; frame < 60; frame++) shape.write(drawn(straight), knots, 0);
    expect(knots[4 * PER_KNOT + 3]).toBeLessThan(next / 2);
  });

  it("makes numbers of a backbone that has collapsed into a point or lies on a line", () => {
    const { trace, positions } = helixTrace(5);
    for (const place of [positions.map(() => 0), positions.map((_, at) => (at % 3 === 2 ? Math.floor(at / 6) : 0))]) {
      expect(knotsOf(trace, place).knots.every(Number.isFinite)).toBe(true);
    }
  });

  it("begins where it is told, and leaves colours alone", () => {
    const { trace, positions } = helixTrace(3);
    const { knots } = knotsOf(trace, positions, 1, 5);
    for (const residue of [0, 4]) expect(knots.subarray(residue * PER_KNOT, (residue + 1) * PER_KNOT).every((value) => value === -7)).toBe(true);
    expect(part(knots, 2, 8)).toEqual([-7, -7, -7]);
  });
});

describe("writeVertices", () => {
  const residues = 3;
  const vertices = new Uint32Array(ringCount(residues) * SIDES * 2);
  const end = writeVertices(vertices, 0, 40, residues);
  const rings = Array.from({ length: ringCount(residues) }, (_, ring) => ring * SIDES * 2);

  it("goes from the first residue to the last, step by step", () => {
    expect(end).toBe(vertices.length);
    const along = rings.slice(1, -1).map((at) => (vertices[at]! - 40) * STEPS + (vertices[at + 1]! & 15));
    expect(along).toEqual(Array.from({ length: 2 * STEPS + 1 }, (_, at) => at));
    expect(Math.max(...rings.map((at) => vertices[at]!))).toBe(41);
  });

  it("says of each what is before and after it, and which are the points at the ends", () => {
    const bits = rings.map((at) => vertices[at + 1]!);
    expect(bits.map((bit) => (bit & FIRST_POINT) !== 0).indexOf(true)).toBe(0);
    expect(bits.map((bit) => (bit & LAST_POINT) !== 0).indexOf(true)).toBe(rings.length - 1);
    rings.forEach((at, ring) => {
      expect((bits[ring]! & HAS_BEFORE) !== 0).toBe(vertices[at]! > 40);
      expect((bits[ring]! & HAS_AFTER) !== 0).toBe(vertices[at]! < 41);
    });
    expect([...vertices.subarray(1, SIDES * 2)].filter((_, at) => at % 2 === 0).map((bit) => (bit >> 4) & 15)).toEqual(
      Array.from({ length: SIDES }, (_, side) => side),
    );
  });
});

describe("writeTriangles", () => {
  it("joins each ring to the next, with triangles of vertices that there are", () => {
    const rings = ringCount(3);
    const index = new Uint32Array((rings - 1) * SIDES * 6);
    expect(writeTriangles(index, 0, 40, rings)).toBe(index.length);
    expect(Math.min(...index)).toBe(40);
    expect(Math.max(...index)).toBe(40 + rings * SIDES - 1);
  });
});
