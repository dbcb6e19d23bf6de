import { describe, expect, it } from "vitest";
import type { ColorScheme } from "../contracts.ts";
import { COIL, HELIX } from "./backbone.ts";
import { colorParticles, ribbonColor } from "./colors.ts";
import { elementLook } from "./elements.ts";
import { distinctColor, isAminoAcid, isWater, residueColor } from "./residues.ts";
import type { RenderingHint } from "./selections.ts";

const SOURCE = {
  particleCount: 3,
  elements: Uint8Array.of(8, 6, 200),
  residues: Uint32Array.of(0, 1, 9),
  residueNames: ["HOH", "LYS"],
  residueChains: Uint32Array.of(0, 1),
};

function colorsOf(scheme: ColorScheme, hints: RenderingHint[] = [], source = SOURCE): number[] {
  const bytes = new Uint8Array(16);
  colorParticles(source, scheme, hints, bytes);
  const words = new DataView(bytes.buffer);
  return [0, 1, 2].map((particle) => words.getUint32(particle * 4) >>> 8);
}

describe("colorParticles", () => {
  it("colours by element", () => {
    expect(colorsOf("element")).toEqual([8, 6, 200].map((z) => elementLook(z).color));
  });

  it("colours by residue and chain, and by element what is in none", () => {
    expect(colorsOf("residue")).toEqual([residueColor("HOH"), residueColor("LYS"), elementLook(200).color]);
    expect(colorsOf("chain").slice(0, 2)).toEqual([distinctColor(0), distinctColor(1)]);
    expect(colorsOf("chain", [], { ...SOURCE, residueNames: [] })).toEqual(colorsOf("element"));
  });

  it("lays the colours of selections over the rest", () => {
    const hint = { particles: [1, 77], hide: false, representation: null, color: 0x123456 };
    expect(colorsOf("uniform", [hint])[1]).toBe(0x123456);
    expect(new Set(colorsOf("uniform", [{ ...hint, particles: null }]))).toEqual(new Set([0x123456]));
  });
});

describe("ribbonColor", () => {
  it("tells helices from coils, where nothing else has coloured the alpha carbon", () => {
    const bytes = new Uint8Array(16);
    colorParticles(SOURCE, "element", [], bytes);
    expect(ribbonColor("element", 1, HELIX, bytes)).not.toBe(ribbonColor("element", 1, COIL, bytes));
    bytes.set([1, 2, 3], 4);
    expect(ribbonColor("element", 1, HELIX, bytes)).toBe(0x010203);
    expect(ribbonColor("chain", 1, HELIX, bytes)).toBe(0x010203);
  });
});

describe("residues", () => {
  it("knows amino acids, at the ends of chains too, and water", () => {
    expect(["ALA", "NALA", "CGLY", "HIE", "lys"].every(isAminoAcid)).toBe(true);
    expect(["HOH", "NA", "CLA", "toString", ""].some(isAminoAcid)).toBe(false);
    expect(isWater("TIP3")).toBe(true);
  });

  it("gives unknown names a colour that is always the same", () => {
    expect(residueColor("LIG")).toBe(residueColor("LIG"));
    expect(residueColor("LIG")).not.toBe(residueColor("DRG"));
  });

  it("tells neighbouring chains apart", () => {
    expect(new Set(Array.from({ length: 24 }, (_, chain) => distinctColor(chain))).size).toBe(24);
  });
});
