import { describe, expect, it } from "vitest";
import { boxCorners, EDGES } from "./box-lines.ts";

describe("boxCorners", () => {
  it("are sums of the vectors of a skewed box", () => {
    const corners = boxCorners(Float32Array.of(3, 0, 0, 1, 2, 0, 0.5, 0.5, 4));
    expect([...corners.subarray(0, 3)]).toEqual([0, 0, 0]);
    expect([...corners.subarray(9, 12)]).toEqual([4, 2, 0]);
    expect([...corners.subarray(21, 24)]).toEqual([4.5, 2.5, 4]);
  });
});

describe("EDGES", () => {
  it("go along each vector four times, from corner to corner", () => {
    const ways = new Map<number, number>();
    const edges = new Set<string>();
    for (let at = 0; at < EDGES.length; at += 2) {
      const way = EDGES[at]! ^ EDGES[at + 1]!;
      ways.set(way, (ways.get(way) ?? 0) + 1);
      edges.add(`${EDGES[at]}-${EDGES[at + 1]}`);
    }
    expect(Object.fromEntries(ways)).toEqual({ 1: 4, 2: 4, 4: 4 });
    expect(edges.size).toBe(12);
  });
});
