/** Van der Waals radii and colours by atomic number, as data. */

interface ElementLook {
  /** van der Waals radius, nm (Bondi 1964; Alvarez 2013 for metals). */
  readonly radius: number;
  /** 0xRRGGBB, sRGB. */
  readonly color: number;
}

/** Atomic number 0: virtual sites, coarse-grained beads, and whatever the source did not name. */
const UNKNOWN: ElementLook = { radius: 0.18, color: 0xc9a0c8 };

const KNOWN: Readonly<Record<number, readonly [radius: number, color: number]>> = {
  1: [0.11, 0xe3e7eb],
  2: [0.14, 0xd0f4f4],
  3: [0.182, 0xb37ff0],
  4: [0.153, 0xb5d94a],
  5: [0.192, 0xf2b0a8],
  6: [0.17, 0x6f7a86],
  7: [0.155, 0x4a6df2],
  8: [0.152, 0xe8483f],
  9: [0.147, 0x86d95c],
  10: [0.154, 0x9fdcea],
  11: [0.227, 0xa468e6],
  12: [0.173, 0x7ecb46],
  13: [0.184, 0xbfa5a5],
  14: [0.21, 0xe6bf94],
  15: [0.18, 0xf29033],
  16: [0.18, 0xf0cd3d],
  17: [0.175, 0x4dcb60],
  18: [0.188, 0x78c8da],
  19: [0.275, 0x8d4fd6],
  20: [0.231, 0x63cf55],
  25: [0.2, 0x9c7ac7],
  26: [0.2, 0xdd7338],
  27: [0.2, 0xe58ea2],
  28: [0.163, 0x58c95f],
  29: [0.14, 0xc98038],
  30: [0.139, 0x8085bd],
  34: [0.19, 0xf0a428],
  35: [0.183, 0xaa4438],
  36: [0.202, 0x5cb3cc],
  46: [0.163, 0x1f7d95],
  47: [0.172, 0xc4c8cc],
  48: [0.158, 0xf2d79a],
  53: [0.198, 0x9440a8],
  54: [0.216, 0x4a9fb5],
  55: [0.343, 0x6a2d9c],
  56: [0.268, 0x38b54a],
  78: [0.175, 0xced2e0],
  79: [0.166, 0xf5cf45],
  80: [0.155, 0xb9bacd],
  82: [0.202, 0x636873],
  92: [0.186, 0x3f94e8],
};

/** Metals of the blocks that are not listed one by one. */
const OTHER_METAL: ElementLook = { radius: 0.2, color: 0x9fa8b8 };

/** Radius (nm) and colour of an element; any number is an answer. */
export function elementLook(atomicNumber: number): ElementLook {
  const known = KNOWN[atomicNumber];
  if (known) return { radius: known[0], color: known[1] };
  return atomicNumber > 0 && atomicNumber <= 118 ? OTHER_METAL : UNKNOWN;
}

/** Radii (nm) of all 256 values of a byte, for loops over particles. */
export const VDW_RADIUS: Float32Array = Float32Array.from({ length: 256 }, (_, z) => elementLook(z).radius);

/** Colours (0xRRGGBB) of all 256 values of a byte. */
export const ELEMENT_COLOR: Uint32Array = Uint32Array.from({ length: 256 }, (_, z) => elementLook(z).color);
