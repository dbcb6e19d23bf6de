import { describe, expect, it } from "vitest";
import type { Trace } from "./backbone.ts";
import { curvePoint, curveSlope, ringCount, RibbonShape, SIDES, STEPS, writeTriangles } from "./ribbon-geometry.ts";

describe("the curve", () => {
  it("goes through its knots and bends smoothly there", () => {
    const [a, b, c, d, e] = [0, 1, 3, 2, 5];
    expect(curvePoint(a!, b!, c!, d!, 0)).toBe(b);
    expect(curvePoint(a!, b!, c!, d!, 1)).toBeCloseTo(c!);
    expect(curveSlope(a!, b!, c!, d!, 1)).toBeCloseTo(curveSlope(b!, c!, d!, e!, 0));
  });

  it("has the slope that its points have", () => {
    const step = 1e-5;
    for (const t of [0.1, 0.5, 0.9]) {
      const slope = (curvePoint(0, 1, 3, 2, t + step) - curvePoint(0, 1, 3, 2, t - step)) / (2 * step);
      expect(curveSlope(0, 1, 3, 2, t)).toBeCloseTo(slope, 5);
    }
  });
});

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

describe("RibbonShape", () => {
  it("writes all of its vertices, near the backbone, with normals of length 1", () => {
    const { trace, positions } = helixTrace(10);
    const shape = new RibbonShape(trace);
    expect(shape.rings).toBe(9 * STEPS + 3);
    const vertices = new Float32Array(shape.rings * SIDES * 3).fill(Number.NaN);
    const normals = vertices.slice();
    shape.assign(positions);
    shape.write(drawn(positions), vertices, normals, 0);
    for (let at = 0; at < vertices.length; at += 3) {
      expect(Math.hypot(vertices[at]!, vertices[at + 1]!)).toBeLessThan(0.45);
      expect(Math.hypot(normals[at]!, normals[at + 1]!, normals[at + 2]!)).toBeCloseTo(1, 4);
    }
  });

  it("is wide along the axis of a helix and flat around it", () => {
    const { trace, positions } = helixTrace(10);
    const shape = new RibbonShape(trace);
    const vertices = new Float32Array(shape.rings * SIDES * 3);
    shape.assign(positions);
    shape.write(drawn(positions), vertices, vertices.slice(), 0);
    const first = (1 + 4 * STEPS) * SIDES * 3;
    const ring = vertices.subarray(first, first + SIDES * 3);
    const heights = Array.from({ length: SIDES }, (_, side) => ring[side * 3 + 2]!);
    const radii = Array.from({ length: SIDES }, (_, side) => Math.hypot(ring[side * 3]!, ring[side * 3 + 1]!));
    expect(Math.max(...heights) - Math.min(...heights)).toBeGreaterThan(0.2);
    expect(Math.max(...radii) - Math.min(...radii)).toBeLessThan(0.1);
  });

  it("makes numbers of a backbone that has collapsed into a point or lies on a line", () => {
    const { trace, positions } = helixTrace(5);
    for (const place of [positions.map(() => 0), positions.map((_, at) => (at % 3 === 2 ? Math.floor(at / 6) : 0))]) {
      const shape = new RibbonShape(trace);
      const vertices = new Float32Array(shape.rings * SIDES * 3);
      shape.write(drawn(place), vertices, vertices.slice(), 0);
      expect(vertices.every(Number.isFinite)).toBe(true);
    }
  });

  it("begins where it is told", () => {
    const { trace, positions } = helixTrace(3);
    const shape = new RibbonShape(trace);
    const vertices = new Float32Array((shape.rings + 2) * SIDES * 3).fill(-7);
    shape.write(drawn(positions), vertices, vertices.slice(), SIDES);
    expect(vertices.subarray(0, SIDES * 3).every((value) => value === -7)).toBe(true);
    expect(vertices.subarray(-SIDES * 3).every((value) => value === -7)).toBe(true);
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
