import { describe, expect, it } from "vitest";
import { Drag, depthFactor, distance, nudged, planePoint, type Point } from "./drag.ts";

const close = (actual: readonly number[], expected: readonly number[]) => {
  expect(actual).toHaveLength(expected.length);
  expected.forEach((value, i) => expect(actual[i]).toBeCloseTo(value, 10));
};

describe("the drag plane", () => {
  it("is met by a ray at the depth of what is held", () => {
    const out: Point = [0, 0, 0];
    close(planePoint([0, 0, 10], [0.1, 0.2, -1], [3, 3, 0], [0, 0, 1], out), [1, 2, 0]);
  });

  it("does not depend on the length of the normal or on which way it points", () => {
    const a: Point = [0, 0, 0];
    const b: Point = [0, 0, 0];
    planePoint([1, 2, 9], [0.3, 0, -1], [0, 0, 1], [0.2, 0.1, 1], a);
    planePoint([1, 2, 9], [0.3, 0, -1], [0, 0, 1], [-0.4, -0.2, -2], b);
    close(a, b);
  });

  it("leaves the handle where it is for a ray along the plane or away from it", () => {
    const out: Point = [0, 0, 0];
    expect(planePoint([0, 0, 10], [1, 0, 0], [1, 2, 3], [0, 0, 1], out)).toEqual([1, 2, 3]);
    expect(planePoint([0, 0, 10], [0, 0, 1], [1, 2, 3], [0, 0, 1], out)).toEqual([1, 2, 3]);
    expect(planePoint([0, 0, 10], [0, 0, 0], [1, 2, 3], [0, 0, 1], out)).toEqual([1, 2, 3]);
  });
});

describe("a drag", () => {
  it("starts at the centre of what is held, wherever the pointer met it", () => {
    const drag = new Drag([1, 1, 1], [1.1, 0.9, 1]);
    expect(drag.handle).toEqual([1, 1, 1]);
    drag.move([1.1, 0.9, 1]);
    close(drag.handle, [1, 1, 1]);
  });

  it("follows the pointer and keeps the distance to it", () => {
    const drag = new Drag([1, 1, 1], [1.1, 0.9, 1]);
    drag.move([2.1, 0.4, 1]);
    close(drag.handle, [2, 0.5, 1]);
  });

  it("goes in depth along the line of sight, and comes back", () => {
    const eye: Point = [0, 0, 10];
    const drag = new Drag([1, 0, 0], [1.2, 0, 0]);
    drag.deepen(eye, 1.5);
    close(drag.handle, [1.5, 0, -5]);
    drag.deepen(eye, 1 / 1.5);
    close(drag.handle, [1, 0, 0]);
    drag.move([1.2, 0, 0]);
    close(drag.handle, [1, 0, 0]);
  });

  it("stays under the pointer after a change of depth", () => {
    const eye: Point = [0, 0, 10];
    const drag = new Drag([1, 0, 0], [1.2, 0, 0]);
    drag.deepen(eye, 2);
    drag.move([2.4, 0, -10]); // the same line of sight as (1.2, 0, 0), at the new depth
    close(drag.handle, [2, 0, -10]);
  });
});

describe("the wheel", () => {
  it("takes the handle away when turned away, and back", () => {
    expect(depthFactor(-100, 0)).toBeGreaterThan(1);
    expect(depthFactor(100, 0)).toBeLessThan(1);
    expect(depthFactor(100, 0) * depthFactor(-100, 0)).toBeCloseTo(1, 12);
  });

  it("is as far in lines as in pixels, about", () => {
    expect(depthFactor(-3, 1)).toBeCloseTo(depthFactor(-120, 0), 12);
  });

  it("never jumps, nor passes on nonsense", () => {
    expect(depthFactor(-1e9, 0)).toBeLessThan(2);
    expect(depthFactor(1e9, 0)).toBeGreaterThan(0.5);
    expect(depthFactor(Number.NaN, 0)).toBe(1);
    expect(depthFactor(Number.POSITIVE_INFINITY, 0)).toBe(1);
  });
});

describe("a nudge", () => {
  it("moves in the screen's plane", () => {
    const out: Point = [0, 0, 0];
    close(nudged([1, 2, 3], [0, 1, 0], [0, 0, 1], 0.5, -0.25, out), [1, 2.5, 2.75]);
  });

  it("may be written over what it starts from", () => {
    const handle: Point = [0, 0, 0];
    nudged(handle, [1, 0, 0], [0, 1, 0], 1, 2, handle);
    expect(handle).toEqual([1, 2, 0]);
  });
});

it("distances are Euclidean", () => {
  expect(distance([1, 2, 3], [1, 5, 7])).toBe(5);
});
