import { describe, expect, it } from "vitest";
import type { Representation } from "../contracts.ts";
import type { Trace } from "./backbone.ts";
import { type Drawing, layOut } from "./drawing.ts";
import type { RenderingHint } from "./selections.ts";

/** A chain of four carbons, a water and an ion. */
const SOURCE = {
  particleCount: 8,
  elements: Uint8Array.of(6, 6, 6, 6, 8, 1, 1, 11),
  bonds: Uint32Array.of(0, 1, 1, 2, 2, 3, 4, 5, 4, 6),
  residues: Uint32Array.of(0, 1, 2, 2, 3, 3, 3, 4),
  residueNames: ["ALA", "GLY", "ALA", "HOH", "NA"],
};
const TRACE: Trace = { alphas: Uint32Array.of(0, 1, 2), oxygens: Uint32Array.of(0, 1, 2), residues: Uint32Array.of(0, 1, 2) };

function hint(particles: number[] | null, rest: Partial<RenderingHint>): RenderingHint {
  return { particles, hide: false, representation: null, color: null, ...rest };
}

function drawingOf(representation: Representation, hints: RenderingHint[] = []): Drawing {
  return layOut(SOURCE, [TRACE], representation, hints);
}

function spheresOf(drawing: Drawing): number[] {
  return [...drawing.spheres.subarray(0, drawing.sphereCount)];
}

describe("layOut", () => {
  it("draws balls for all particles and sticks for all bonds", () => {
    const drawing = drawingOf("ball and stick");
    expect([drawing.sphereCount, drawing.stickCount, drawing.lineCount]).toEqual([8, 5, 0]);
    expect(drawing.sphereRadii[0]).toBeCloseTo(0.0425);
  });

  it("draws sticks as thick as their ends, and what has no bond as a ball", () => {
    const drawing = drawingOf("liquorice");
    expect(drawing.sphereRadii[0]).toBeCloseTo(drawing.stickRadii[0]!);
    expect(drawing.sphereRadii[7]).toBeGreaterThan(drawing.sphereRadii[0]!);
  });

  it("draws spheres without bonds, and lines with points where there is none", () => {
    expect(drawingOf("spheres").stickCount).toBe(0);
    const lines = drawingOf("lines");
    expect([lines.lineCount, lines.stickCount]).toEqual([5, 0]);
    expect(spheresOf(lines)).toEqual([7]);
  });

  it("draws a protein as a ribbon, water as lines, and the rest as balls", () => {
    const drawing = drawingOf("ribbon");
    expect(drawing.traces).toHaveLength(1);
    expect(spheresOf(drawing)).toEqual([7]);
    expect([...drawing.lines.subarray(0, drawing.lineCount * 2)]).toEqual([4, 5, 4, 6]);
    expect(drawing.reach[1]).toBeGreaterThan(0);
  });

  it("draws balls and sticks where a ribbon has no backbone to follow", () => {
    const drawing = layOut(SOURCE, [], "ribbon", []);
    expect(spheresOf(drawing)).toEqual([0, 1, 2, 3, 7]);
  });

  it("hides particles with their bonds, and nobody can point at them", () => {
    const drawing = drawingOf("ball and stick", [hint([4, 5, 6], { hide: true })]);
    expect(spheresOf(drawing)).toEqual([0, 1, 2, 3, 7]);
    expect(drawing.stickCount).toBe(3);
    expect([...drawing.reach.subarray(4, 7)]).toEqual([0, 0, 0]);
  });

  it("lays later selections over earlier ones", () => {
    const drawing = drawingOf("lines", [hint(null, { hide: true }), hint([0, 1], { representation: "spheres" })]);
    expect(spheresOf(drawing)).toEqual([0, 1]);
    expect(drawing.lineCount).toBe(0);
  });

  it("passes over bonds and selections of particles that there are not", () => {
    const source = { ...SOURCE, bonds: Uint32Array.of(0, 99, 3, 3, 0, 1), elements: new Uint8Array(0) };
    const drawing = layOut(source, [], "ball and stick", [hint([1000], { hide: true })]);
    expect([drawing.stickCount, drawing.sphereCount]).toEqual([1, 8]);
  });
});
