import { describe, expect, it } from "vitest";
import { assignStructure, type BackboneSource, COIL, findTraces, HELIX, STRAND } from "./backbone.ts";

/** Residues of N, CA, C, O, each bonded to the next. */
function peptide(residues: number, names = new Array<string>(residues).fill("ALA")): BackboneSource {
  const bonds: number[] = [];
  const positions = new Float32Array(residues * 12);
  for (let residue = 0; residue < residues; residue++) {
    const first = residue * 4;
    bonds.push(first, first + 1, first + 1, first + 2, first + 2, first + 3);
    if (residue > 0) bonds.push(first - 2, first);
    for (let atom = 0; atom < 4; atom++) positions[(first + atom) * 3] = residue * 0.38 + atom * 0.1;
  }
  return {
    particleCount: residues * 4,
    positions,
    elements: Uint8Array.from({ length: residues * 4 }, (_, at) => [7, 6, 6, 8][at % 4]!),
    bonds: Uint32Array.from(bonds),
    names: Array.from({ length: residues * 4 }, (_, at) => ["N", "CA", "C", "O"][at % 4]!),
    residues: Uint32Array.from({ length: residues * 4 }, (_, at) => at >> 2),
    residueNames: names,
    residueChains: new Uint32Array(residues),
  };
}

describe("findTraces", () => {
  it("follows the alpha carbons of a chain", () => {
    const [trace, ...others] = findTraces(peptide(4));
    expect(others).toEqual([]);
    expect([...trace!.alphas]).toEqual([1, 5, 9, 13]);
    expect([...trace!.oxygens]).toEqual([3, 7, 11, 15]);
  });

  it("breaks where a bond is missing, and another chain begins", () => {
    const source = peptide(8);
    const bonds = [...source.bonds];
    const cut = bonds.findIndex((value, at) => at % 2 === 0 && value === 14 && bonds[at + 1] === 16);
    bonds.splice(cut, 2);
    expect(findTraces({ ...source, bonds: Uint32Array.from(bonds) }).map((trace) => trace.alphas.length)).toEqual([4, 4]);
    const residueChains = Uint32Array.of(0, 0, 0, 0, 0, 1, 1, 1);
    expect(findTraces({ ...source, residueChains }).map((trace) => trace.alphas.length)).toEqual([5, 3]);
  });

  it("goes by distance where no bonds are known", () => {
    const source = { ...peptide(6), bonds: new Uint32Array(0) };
    expect(findTraces(source)).toHaveLength(1);
    source.positions[13 * 3 + 1] = 4;
    expect(findTraces(source).map((trace) => trace.alphas.length)).toEqual([3]);
  });

  it("sees no backbone in calcium, water or too short a peptide", () => {
    const source = peptide(4);
    expect(findTraces({ ...source, elements: source.elements.map((z, at) => (at % 4 === 1 ? 20 : z)) })).toEqual([]);
    expect(findTraces(peptide(2))).toEqual([]);
    expect(findTraces({ ...source, names: [] })).toEqual([]);
    expect(findTraces({ ...source, residues: new Uint32Array(16).fill(99) })).toEqual([]);
  });

  it("takes residues with a backbone of names that it does not know", () => {
    expect(findTraces(peptide(4, ["ALA", "XYZ", "PTR", "GLY"]))[0]?.alphas.length).toBe(4);
  });
});

describe("assignStructure", () => {
  const alphas = Uint32Array.from({ length: 12 }, (_, at) => at);
  function structureOf(place: (at: number) => [number, number, number]): number[] {
    const structure = new Uint8Array(12);
    assignStructure(Float32Array.from([...alphas].flatMap(place)), alphas, structure);
    return [...structure];
  }

  it("knows an alpha helix: 0.15 nm and 100 degrees a residue", () => {
    const turn = (100 * Math.PI) / 180;
    const helix = structureOf((at) => [0.23 * Math.cos(at * turn), 0.23 * Math.sin(at * turn), 0.15 * at]);
    expect(helix).toEqual(new Array(12).fill(HELIX));
  });

  it("knows a strand: 0.33 nm a residue, pleated", () => {
    expect(structureOf((at) => [0.335 * at, at % 2 ? 0.09 : -0.09, 0])).toEqual(new Array(12).fill(STRAND));
  });

  it("takes anything else for a coil", () => {
    expect(structureOf((at) => [0.38 * at, 0, 0])).toEqual(new Array(12).fill(COIL));
    expect(structureOf(() => [0, 0, 0])).toEqual(new Array(12).fill(COIL));
    expect(structureOf(() => [Number.NaN, 0, 0])).toEqual(new Array(12).fill(COIL));
  });
});
