import { describe, expect, it } from "vitest";
import { centreOf, shorten, type PositionOf } from "./centre.ts";
import type { Point } from "./drag.ts";
import { frameOf } from "./frame.fixture.ts";

const drawn = (points: readonly (readonly number[])[]): PositionOf => (particle, out) => {
  [out[0], out[1], out[2]] = points[particle] as [number, number, number];
  return out;
};
const box = new Float32Array([3, 0, 0, 0, 3, 0, 0, 0, 3]);

describe("the centre", () => {
  it("of one particle is where that is drawn, not where the frame says", () => {
    const out: Point = [0, 0, 0];
    expect(centreOf([1], frameOf([[0, 0, 0], [9, 9, 9]]), drawn([[0, 0, 0], [1, 2, 3]]), out)).toBe(true);
    expect(out).toEqual([1, 2, 3]);
  });

  it("of several is weighted with their masses", () => {
    const points = [[0, 0, 0], [1, 0, 0]];
    const out: Point = [0, 0, 0];
    centreOf([0, 1], frameOf(points, { elements: new Uint8Array([1, 8]) }), drawn(points), out);
    expect(out[0]).toBeCloseTo(15.999 / 17.007, 5);
  });

  it("of a group across the boundary is at the boundary, not in the middle", () => {
    const points = [[2.9, 1, 1], [0.1, 1, 1]];
    const out: Point = [0, 0, 0];
    centreOf([0, 1], frameOf(points, { box }), drawn(points), out);
    expect(out[0]).toBeCloseTo(3, 5);
    centreOf([0, 1], frameOf(points), drawn(points), out);
    expect(out[0]).toBeCloseTo(1.5, 5);
  });

  it("is none without particles, with particles that are not there, or with positions that are no numbers", () => {
    const frame = frameOf([[0, 0, 0], [Number.NaN, 0, 0]]);
    const at = drawn([[0, 0, 0], [Number.NaN, 0, 0]]);
    const out: Point = [0, 0, 0];
    expect(centreOf([], frame, at, out)).toBe(false);
    expect(centreOf([5, -1], frame, at, out)).toBe(false);
    expect(centreOf([1], frame, at, out)).toBe(false);
  });

  it("does not mind a position reader that makes its own point", () => {
    const points = [[0, 0, 0], [1, 0, 0], [2, 0, 0]];
    const out: Point = [0, 0, 0];
    centreOf([0, 1, 2], frameOf(points), (particle) => [particle, 0, 0], out);
    expect(out[0]).toBeCloseTo(1, 10);
  });

  it("of a large group is close to that of a part of it", () => {
    const points = Array.from({ length: 50_000 }, (_, i) => [i / 50_000, 0, 0]);
    const out: Point = [0, 0, 0];
    centreOf(points.map((_, i) => i), frameOf(points), drawn(points), out);
    expect(out[0]).toBeCloseTo(0.5, 2);
  });
});

describe("the short way", () => {
  it("is within half a box", () => {
    const difference: Point = [2.8, -1.6, 7.4];
    shorten(difference, box);
    [-0.2, 1.4, 1.4].forEach((value, i) => expect(difference[i]).toBeCloseTo(value, 6));
  });

  it("takes whole vectors of a triclinic box", () => {
    const triclinic = new Float32Array([3, 0, 0, 1, 3, 0, 1, 1, 3]);
    const difference: Point = [1 + 0.1, 1 + 0.2, 3 + 0.3];
    shorten(difference, triclinic);
    [0.1, 0.2, 0.3].forEach((value, i) => expect(difference[i]).toBeCloseTo(value, 6));
  });

  it("leaves a direction without a box alone", () => {
    const difference: Point = [9, 9, 9];
    shorten(difference, new Float32Array(9));
    expect(difference).toEqual([9, 9, 9]);
  });
});
