import { describe, expect, it } from "vitest";
import { FrameRate } from "./frame-rate.ts";

/** Draws so many frames; returns the scale of the last. */
function run(rate: FrameRate, from: number, interval: number, frames: number, moved = true): number {
  for (let frame = 0; frame < frames; frame++) rate.begin(from + frame * interval, moved);
  return rate.scale;
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

  it("draws more coarsely only where many frames on end are slow", () => {
    const rate = new FrameRate();
    expect(run(rate, 0, 16, 100)).toBe(1);
    expect(run(rate, 2000, 80, 10)).toBe(1);
    expect(run(rate, 3000, 16, 10)).toBe(1);
    expect(run(rate, 4000, 80, 22)).toBe(0.8);
  });

  it("draws finely what holds still, and coarsely at once when it moves again", () => {
    const rate = new FrameRate();
    run(rate, 0, 80, 22);
    expect(run(rate, 1760, 80, 3, false)).toBe(0.8);
    expect(run(rate, 2000, 80, 200, false)).toBe(1);
    expect(run(rate, 20_000, 80, 1)).toBe(0.8);
    rate.restart();
    expect(run(rate, 20_100, 16, 5)).toBe(1);
  });

  it("holds slow frames against nothing that holds still", () => {
    const rate = new FrameRate();
    run(rate, 0, 80, 100, false);
    expect(run(rate, 8000, 80, 5)).toBe(1);
  });

  it("takes a pause for no slow frame", () => {
    const rate = new FrameRate();
    expect(run(rate, 0, 5000, 50)).toBe(1);
    expect(rate.fps).toBe(0);
  });

  it("does not go on for ever", () => {
    const rate = new FrameRate();
    expect(run(rate, 0, 80, 1000)).toBe(0.5);
  });
});
