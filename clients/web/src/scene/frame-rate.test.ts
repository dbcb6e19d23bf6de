import { describe, expect, it } from "vitest";
import { coarser, FrameRate } from "./frame-rate.ts";

function run(rate: FrameRate, from: number, interval: number, frames: number): boolean {
  let asked = false;
  for (let frame = 0; frame < frames; frame++) asked = rate.begin(from + frame * interval) || asked;
  return asked;
}

describe("FrameRate", () => {
  it("tells frames per second and the work of each", () => {
    const rate = new FrameRate();
    expect(rate.fps).toBe(0);
    run(rate, 0, 1000 / 60, 200);
    rate.end(4);
    expect(rate.fps).toBeCloseTo(60, 0);
    expect(rate.frameMs).toBe(4);
  });

  it("asks to draw more coarsely only where many frames on end are slow", () => {
    const rate = new FrameRate();
    expect(run(rate, 0, 16, 100)).toBe(false);
    expect(run(rate, 2000, 80, 10)).toBe(false);
    expect(run(rate, 3000, 16, 10)).toBe(false);
    expect(run(rate, 4000, 80, 40)).toBe(true);
  });

  it("takes a pause for no slow frame", () => {
    const rate = new FrameRate();
    expect(run(rate, 0, 5000, 50)).toBe(false);
    expect(rate.fps).toBe(0);
  });

  it("does not go on for ever", () => {
    let scale = 1;
    for (let step = 0; step < 20; step++) scale = coarser(scale);
    expect(scale).toBeGreaterThan(0.5);
    expect(coarser(scale)).toBe(scale);
  });
});
