import { describe, expect, it } from "vitest";
import { frameOf } from "./frame.fixture.ts";
import { extentOf, nearestParticle } from "./nearest.ts";

const frame = frameOf([[0, 0, 0], [1, 0, 0], [1, 1, 0], [Number.NaN, 0, 0]]);

describe("the nearest particle", () => {
  it("is the nearest within reach", () => {
    expect(nearestParticle(frame, [0.9, 0.2, 0], 0.5)).toBe(1);
    expect(nearestParticle(frame, [0.9, 0.8, 0], 0.5)).toBe(2);
  });
  it("is none out of reach", () => expect(nearestParticle(frame, [5, 5, 5], 1)).toBe(-1));
  it("is none of nothing", () => expect(nearestParticle(frameOf([]), [0, 0, 0], 1)).toBe(-1));
});

describe("the extent", () => {
  it("is around all particles", () => {
    expect(extentOf(frameOf([[0, 0, 0], [2, 4, -6]]))).toEqual({ centre: [1, 2, -3], radius: 3 });
  });
  it("of nothing is a nanometre", () => {
    for (const none of [null, frameOf([])]) expect(extentOf(none)).toEqual({ centre: [0, 0, 0], radius: 0.5 });
  });
  it("passes over positions that are no numbers", () => expect(extentOf(frame)).toEqual({ centre: [0.5, 0.5, 0], radius: 0.5 }));
});
