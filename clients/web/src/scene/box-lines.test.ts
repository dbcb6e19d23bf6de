import { describe, expect, it } from "vitest";
import { writeEdges } from "./box-lines.ts";

describe("writeEdges", () => {
  it("draws each vector of a skewed box four times", () => {
    const box = Float32Array.of(3, 0, 0, 1, 2, 0, 0.5, 0.5, 4);
    const ends = new Float32Array(72);
    writeEdges(box, ends);
    const edges = new Map<string, number>();
    for (let at = 0; at < 72; at += 6) {
      const edge = [0, 1, 2].map((axis) => (ends[at + 3 + axis]! - ends[at + axis]!).toFixed(3)).join();
      edges.set(edge, (edges.get(edge) ?? 0) + 1);
    }
    expect(Object.fromEntries(edges)).toEqual({ "3.000,0.000,0.000": 4, "1.000,2.000,0.000": 4, "0.500,0.500,4.000": 4 });
  });
});
