/** What the names of residues say: amino acids, water, and a colour for each. */

const COLORS = {
  acidic: 0xe0574f,
  basic: 0x4f7be0,
  polar: 0x43b8a6,
  hydrophobic: 0xa3b18a,
  aromatic: 0x9a6fd0,
  sulphur: 0xe3bf45,
  glycine: 0xc8cdd3,
  proline: 0xe08a4a,
  purine: 0x5f9ee0,
  pyrimidine: 0xe0a05f,
} as const;

type Kind = keyof typeof COLORS;

const AMINO_ACIDS: Readonly<Record<string, Kind>> = {
  ALA: "hydrophobic", VAL: "hydrophobic", LEU: "hydrophobic", ILE: "hydrophobic", AIB: "hydrophobic", NLE: "hydrophobic",
  PHE: "aromatic", TYR: "aromatic", TRP: "aromatic",
  GLY: "glycine", PRO: "proline", HYP: "proline",
  SER: "polar", THR: "polar", ASN: "polar", GLN: "polar",
  CYS: "sulphur", CYX: "sulphur", CYM: "sulphur", MET: "sulphur", MSE: "sulphur",
  ASP: "acidic", GLU: "acidic", ASH: "acidic", GLH: "acidic",
  LYS: "basic", ARG: "basic", LYN: "basic", HIS: "basic", HID: "basic", HIE: "basic", HIP: "basic",
  HSD: "basic", HSE: "basic", HSP: "basic", ORN: "basic",
};

const NUCLEOTIDES: Readonly<Record<string, Kind>> = {
  A: "purine", G: "purine", DA: "purine", DG: "purine", I: "purine",
  C: "pyrimidine", U: "pyrimidine", T: "pyrimidine", DC: "pyrimidine", DT: "pyrimidine", DU: "pyrimidine",
};

const WATER = new Set(["HOH", "WAT", "H2O", "SOL", "TIP3", "TIP4", "TIP5", "TP3", "SPC", "DOD", "T3P", "T4P"]);

const WATER_COLOR = 0x7fb3d8;

/** The name without the N and C that force fields put before those of terminal residues. */
function amino(name: string): Kind | undefined {
  const upper = name.toUpperCase();
  return AMINO_ACIDS[upper] ?? (/^[NC][A-Z]{3}$/.test(upper) ? AMINO_ACIDS[upper.slice(1)] : undefined);
}

export function isAminoAcid(name: string): boolean {
  return amino(name) !== undefined;
}

export function isWater(name: string): boolean {
  return WATER.has(name.toUpperCase());
}

/** The colour (0xRRGGBB) of a residue by its kind; one that is not known gets one that is always the same for its name. */
export function residueColor(name: string): number {
  if (isWater(name)) return WATER_COLOR;
  const kind = amino(name) ?? NUCLEOTIDES[name.toUpperCase()];
  if (kind) return COLORS[kind];
  let hash = 2166136261;
  for (let at = 0; at < name.length; at++) hash = Math.imul(hash ^ name.charCodeAt(at), 16777619);
  return distinctColor((hash >>> 0) % 64);
}

/** Colours (0xRRGGBB) far from those of neighbouring counts: hues a golden angle apart, equally light (OKLCH). */
export function distinctColor(count: number): number {
  const hue = ((count * 137.508 + 245) % 360) * (Math.PI / 180);
  const lightness = 0.7 - 0.07 * (Math.floor(count / 8) % 3);
  const a = 0.125 * Math.cos(hue);
  const b = 0.125 * Math.sin(hue);
  const l = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3;
  const m = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3;
  const s = (lightness - 0.0894841775 * a - 1.291485548 * b) ** 3;
  const red = channel(4.0767416621 * l - 3.3077115913 * m + 0.2309699292 * s);
  const green = channel(-1.2684380046 * l + 2.6097574011 * m - 0.3413193965 * s);
  const blue = channel(-0.0041960863 * l - 0.7034186147 * m + 1.707614701 * s);
  return (red << 16) | (green << 8) | blue;
}

function channel(linear: number): number {
  const bounded = Math.min(Math.max(linear, 0), 1);
  const encoded = bounded <= 0.0031308 ? 12.92 * bounded : 1.055 * bounded ** (1 / 2.4) - 0.055;
  return Math.round(encoded * 255);
}
