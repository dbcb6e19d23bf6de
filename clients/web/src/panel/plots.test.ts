import { expect, test } from "vitest";
import type { Frame } from "../contracts.ts";
import { qrPath } from "./invite.ts";
import { courseX, Series, shownNumber } from "./plots.ts";
import { frameWords, particleWords, timeWords } from "./words.ts";

test("a series keeps the newest values", () => {
  const series = new Series(3);
  expect(series.last).toBeNaN();
  expect(series.range([0, 0])).toEqual([0, 1]);
  for (const value of [1, 5, NaN, 2]) series.push(value);
  expect([series.at(0), series.at(1), series.at(2)]).toEqual([5, NaN, 2]);
  expect(series.last).toBe(2);
  expect(series.range([0, 0])).toEqual([2, 5]);
  series.clear();
  expect(series.length).toBe(0);
});

test("a course takes the width that there is, whatever it has seen so far", () => {
  expect([0, 100, 200].map((at) => courseX(at, 201, 60))).toEqual([0, 30, 60]);
  expect([courseX(0, 39, 60), courseX(38, 39, 60)]).toEqual([0, 60]);
  expect(courseX(0, 1, 60)).toBe(60);
  expect(courseX(0, 2, 60)).toBeGreaterThan(50);
});

test.each([
  [300.44, 0, "300"],
  [-1234.56, 1, "−1234.6"],
  [-0.01, 1, "0.0"],
  [123456.7, 1, "123457"],
  [2.5e9, 0, "2.50e9"],
  [NaN, 1, "–"],
])("%d is shown in short", (value, digits, text) => {
  expect(shownNumber(value, digits)).toBe(text);
});

const FRAME = {
  serial: 4,
  particleCount: 1003,
  names: ["CA", ""],
  residues: new Uint32Array([1, 0]),
  residueNames: ["GLY", "ALA"],
  residueIds: ["16", "17"],
  residueChains: new Uint32Array([0, 0]),
  chainNames: ["A"],
  values: { "system.simulation.name": "helix", "system.simulation.time": 1234.5 },
} as unknown as Frame;

test("a particle is called by its names, as far as there are any", () => {
  expect(particleWords(FRAME, 0)).toBe("CA (0) · ALA 17 · chain A");
  expect(particleWords(FRAME, 1)).toBe("particle (1) · GLY 16 · chain A");
  expect(particleWords(FRAME, 2)).toBe("particle (2)");
  expect(particleWords(FRAME, 5000)).toBe("");
});

test("a simulation is told in a line", () => {
  expect(frameWords(FRAME)).toBe("helix · 1.234 ns · 1,003 particles");
  expect(frameWords({ ...FRAME, values: {} })).toBe("Simulation · 1,003 particles");
});

test.each([
  [0.004, "4 fs"],
  [12, "12.00 ps"],
  [2.5e6, "2.5000 µs"],
])("%d ps", (ps, text) => {
  expect(timeWords(ps)).toBe(text);
});

test("a link is drawn as a QR code", () => {
  const [box, path] = qrPath("http://lab:38801/?code=7KQM-2XRD");
  expect(box).toMatch(/^0 0 (\d+) \1$/);
  expect(path).toMatch(/^(M\d+ \d+h1v1h-1z)+$/);
});
