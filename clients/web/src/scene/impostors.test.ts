import { describe, expect, it } from "vitest";
import { fourfold } from "./impostors.ts";

describe("fourfold", () => {
  it("repeats each item for its four vertices, and no more than are in use", () => {
    expect([...fourfold(Uint32Array.of(1, 2, 3, 4, 9, 9), 2, 2)]).toEqual([1, 2, 1, 2, 1, 2, 1, 2, 3, 4, 3, 4, 3, 4, 3, 4]);
    expect([...fourfold(Float32Array.of(0.5, 7), 1, 1)]).toEqual([0.5, 0.5, 0.5, 0.5]);
    expect(fourfold(new Uint32Array(0), 1, 0)).toHaveLength(0);
  });
});
