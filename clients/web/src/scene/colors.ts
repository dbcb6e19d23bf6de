/** Colours of particles and ribbons. */

import type { ColorScheme } from "../contracts.ts";
import { COIL, HELIX } from "./backbone.ts";
import { ELEMENT_COLOR } from "./elements.ts";
import { distinctColor, residueColor } from "./residues.ts";
import type { RenderingHint } from "./selections.ts";

const CARBON = 6;
const UNIFORM = 0x6fa8dc;
const HELIX_COLOR = 0xd9527a;
const STRAND_COLOR = 0xe3b341;
const COIL_COLOR = 0x8fb8c9;

export interface ColorSource {
  readonly particleCount: number;
  readonly elements: Uint8Array;
  readonly residues: Uint32Array;
  readonly residueNames: readonly string[];
  readonly residueChains: Uint32Array;
}

/** Writes the colour of each particle, 4 bytes each (sRGB, opaque). Without residues, schemes by residue and chain colour by element. */
export function colorParticles(
  source: ColorSource,
  scheme: ColorScheme,
  hints: readonly RenderingHint[],
  bytes: Uint8Array,
): void {
  const count = source.particleCount;
  const words = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const paint = painter(source, scheme);
  for (let particle = 0; particle < count; particle++) write(words, particle, paint(particle));
  for (const hint of hints) {
    const { color, particles } = hint;
    if (color === null) continue;
    const cover = typeof color === "number" ? () => color : painter(source, color);
    if (particles === null) for (let particle = 0; particle < count; particle++) write(words, particle, cover(particle));
    else for (const particle of particles) if (particle < count) write(words, particle, cover(particle));
  }
}

/**
 * The colour (0xRRGGBB) of a residue of a ribbon: that of its alpha carbon in `bytes`. By element means by its structure, for
 * all alpha carbons are one colour, unless a selection has given it another.
 */
export function ribbonColor(scheme: ColorScheme, alpha: number, structure: number, bytes: Uint8Array): number {
  const at = alpha * 4;
  const color = ((bytes[at] ?? 0) << 16) | ((bytes[at + 1] ?? 0) << 8) | (bytes[at + 2] ?? 0);
  if (scheme !== "element" || color !== ELEMENT_COLOR[CARBON]) return color;
  return structure === HELIX ? HELIX_COLOR : structure === COIL ? COIL_COLOR : STRAND_COLOR;
}

function painter(source: ColorSource, scheme: ColorScheme): (particle: number) => number {
  const { elements, residues, residueNames, residueChains } = source;
  const byElement = (particle: number): number => ELEMENT_COLOR[elements[particle] ?? 0]!;
  if (scheme === "uniform") return () => UNIFORM;
  if (scheme === "element" || residueNames.length === 0) return byElement;
  const colors =
    scheme === "residue"
      ? Uint32Array.from(residueNames, residueColor)
      : Uint32Array.from(residueNames, (_, residue) => distinctColor((residueChains[residue] ?? 0) % 4096));
  return (particle) => {
    const residue = residues[particle];
    return residue !== undefined && residue < colors.length ? colors[residue]! : byElement(particle);
  };
}

function write(words: DataView, particle: number, color: number): void {
  words.setUint32(particle * 4, ((color << 8) | 0xff) >>> 0);
}
