import { describe, expect, it } from "vitest";
import { ArrivalClock, jumpLimit, shortestVector, startMovement } from "./interpolation.ts";

describe("ArrivalClock", () => {
  it("goes from one frame to the next in about the interval between them", () => {
    const clock = new ArrivalClock();
    let time = 0;
    for (let frame = 0; frame < 60; frame++, time += 33) clock.arrive(time);
    expect(clock.intervalMs).toBeCloseTo(33, 0);
    const last = time - 33;
    expect(clock.fraction(last)).toBe(0);
    expect(clock.fraction(last + 16)).toBeGreaterThan(0.3);
    expect(clock.fraction(last + 33)).toBeGreaterThan(0.8);
    expect(clock.fraction(last + 33)).toBeLessThan(1);
    expect(clock.fraction(last + 40)).toBe(1);
  });

  it("never runs backwards or past the frame", () => {
    const clock = new ArrivalClock();
    expect(clock.fraction(5)).toBe(1);
    clock.arrive(100);
    expect(clock.fraction(90)).toBe(0);
    expect(clock.fraction(10_000)).toBe(1);
  });

  it("learns nothing from a pause", () => {
    const clock = new ArrivalClock();
    for (let frame = 0; frame < 60; frame++) clock.arrive(frame * 20);
    const before = clock.intervalMs;
    clock.arrive(60_000);
    expect(clock.intervalMs).toBe(before);
  });
});

describe("startMovement", () => {
  it("starts from where the particles are drawn", () => {
    const before = Float32Array.of(0, 0, 0);
    const after = Float32Array.of(0.4, 0, 0);
    startMovement(before, after, 0.25, Float32Array.of(0.3, 0.2, 0), 1, 1);
    expect(before[0]).toBeCloseTo(0.1);
    expect([...after]).toEqual([...Float32Array.of(0.3, 0.2, 0)]);
  });

  it("moves at once what jumps across a boundary", () => {
    const before = Float32Array.of(0, 0, 0, 1, 1, 1);
    const after = Float32Array.of(0, 0, 0, 1, 1, 1);
    startMovement(before, after, 1, Float32Array.of(2.9, 0, 0, 1.1, 1, 1), 2, 1);
    expect(before[0]).toBeCloseTo(2.9);
    expect(before[3]).toBe(1);
  });

  it("comes back from positions that are not numbers", () => {
    const before = Float32Array.of(Number.NaN, 0, 0);
    const after = Float32Array.of(Number.NaN, 0, 0);
    startMovement(before, after, 0.5, Float32Array.of(1, 2, 3), 1, 1);
    expect([...before]).toEqual([1, 2, 3]);
  });

  it("leaves what lies beyond the particles alone", () => {
    const before = new Float32Array(6).fill(5);
    startMovement(before, new Float32Array(6), 1, Float32Array.of(1, 1, 1), 1, 10);
    expect([...before.subarray(3)]).toEqual([5, 5, 5]);
  });
});

describe("limits from the box", () => {
  it("takes half the shortest vector, at most 1 nm", () => {
    expect(jumpLimit(Float32Array.of(1.2, 0, 0, 0, 3, 0, 0, 0, 3))).toBeCloseTo(0.6);
    expect(jumpLimit(Float32Array.of(10, 0, 0, 0, 10, 0, 0, 0, 10))).toBe(1);
    expect(jumpLimit(null)).toBe(1);
  });

  it("passes over boxes that are none", () => {
    expect(shortestVector(new Float32Array(3))).toBe(0);
    expect(shortestVector(new Float32Array(9).fill(Number.NaN))).toBe(0);
    expect(jumpLimit(new Float32Array(9))).toBe(1);
  });
});
