import { beforeEach, describe, expect, it, vi } from "vitest";
import { frameOf } from "./frame.fixture.ts";
import { Marks } from "./marks.ts";
import { unitOf } from "./targets.ts";

let marks: Marks;
const heard = vi.fn();

beforeEach(() => {
  heard.mockClear();
  marks = new Marks(() => {});
  marks.on(heard);
});

describe("marks", () => {
  it("come and go with the same click", () => {
    marks.toggle([5, 2]);
    expect(marks.particles).toEqual([2, 5]);
    marks.toggle([5, 7]);
    expect(marks.particles).toEqual([2, 5, 7]);
    marks.toggle([5, 7]);
    expect(marks.particles).toEqual([2]);
    expect(heard).toHaveBeenCalledTimes(3);
  });

  it("are not told of where nothing changes", () => {
    marks.set([]);
    marks.active = false;
    expect(heard).not.toHaveBeenCalled();
    marks.active = true;
    expect(heard).toHaveBeenCalledTimes(1);
  });
});

describe("what is marked at a time", () => {
  const frame = frameOf(Array(5).fill([0, 0, 0]), {
    residues: new Uint32Array([0, 0, 1, 2, 2]),
    residueNames: ["A", "B", "C"],
    residueChains: new Uint32Array([0, 0, 1]),
    chainNames: ["X", "Y"],
  });

  it("is an atom, its residue, or its chain", () => {
    expect(unitOf(1, frame, "atom")).toEqual([1]);
    expect(unitOf(1, frame, "residue")).toEqual([0, 1]);
    expect(unitOf(1, frame, "chain")).toEqual([0, 1, 2]);
    expect(unitOf(4, frame, "chain")).toEqual([3, 4]);
  });

  it("is an atom alone where the source knows no more, and nothing where there is none", () => {
    expect(unitOf(1, frameOf(Array(3).fill([0, 0, 0])), "chain")).toEqual([1]);
    expect(unitOf(9, frame, "chain")).toEqual([]);
  });
});
