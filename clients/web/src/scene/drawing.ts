/** Which particles and bonds are drawn as what. */

import type { Representation } from "../contracts.ts";
import type { Trace } from "./backbone.ts";
import { VDW_RADIUS } from "./elements.ts";
import { isWater } from "./residues.ts";
import type { RenderingHint } from "./selections.ts";

/** Sizes, nm; of balls, parts of the van der Waals radius. */
const BALL_SCALE = 0.25;
const BALL_STICK = 0.0125;
const LIQUORICE = 0.022;
/** Where a particle that is drawn as a line or within a ribbon can be pointed at. */
const LINE_REACH = 0.02;
const RIBBON_REACH = 0.06;

const HIDDEN = 0;
const BALL = 1;
const STICK = 2;
const SPHERE = 3;
const LINE = 4;
const RIBBON = 5;

const CODES: Readonly<Record<Representation, number>> = {
  "ball and stick": BALL,
  liquorice: STICK,
  spheres: SPHERE,
  lines: LINE,
  ribbon: RIBBON,
};

export interface DrawingSource {
  readonly particleCount: number;
  readonly elements: Uint8Array;
  readonly bonds: Uint32Array;
  readonly residues: Uint32Array;
  readonly residueNames: readonly string[];
}

/** What goes to the GPU; counts say how much of the arrays is in use. */
export interface Drawing {
  readonly spheres: Uint32Array;
  readonly sphereRadii: Float32Array;
  readonly sphereCount: number;
  /** Pairs of particles. */
  readonly sticks: Uint32Array;
  readonly stickRadii: Float32Array;
  readonly stickCount: number;
  readonly lines: Uint32Array;
  readonly lineCount: number;
  /** Of each particle, nm, how near a ray must pass to meet it; 0 for those that are hidden. */
  readonly reach: Float32Array;
  readonly traces: readonly Trace[];
}

/** Lays out a drawing of a topology: everything as `representation`, but for what the hints of selections say. */
export function layOut(
  source: DrawingSource,
  traces: readonly Trace[],
  representation: Representation,
  hints: readonly RenderingHint[],
): Drawing {
  const count = source.particleCount;
  const kinds = particleKinds(count, representation, hints);
  const drawnTraces = resolveRibbons(source, traces, kinds);
  const bonded = new Uint8Array(count);
  const { bonds, elements } = source;
  const bondCount = bonds.length >> 1;
  const sticks = new Uint32Array(bondCount * 2);
  const stickRadii = new Float32Array(bondCount);
  const lines = new Uint32Array(bondCount * 2);
  let stickCount = 0;
  let lineCount = 0;
  for (let at = 0; at < bondCount * 2; at += 2) {
    const one = bonds[at]!;
    const other = bonds[at + 1]!;
    if (one >= count || other >= count || one === other) continue;
    const a = kinds[one]!;
    const b = kinds[other]!;
    if (a === HIDDEN || b === HIDDEN || a === RIBBON || b === RIBBON || (a === SPHERE && b === SPHERE)) continue;
    bonded[one] = 1;
    bonded[other] = 1;
    if (a === LINE || b === LINE) {
      lines[lineCount * 2] = one;
      lines[lineCount * 2 + 1] = other;
      lineCount++;
    } else {
      sticks[stickCount * 2] = one;
      sticks[stickCount * 2 + 1] = other;
      stickRadii[stickCount] = a === BALL || b === BALL ? BALL_STICK : LIQUORICE;
      stickCount++;
    }
  }
  const spheres = new Uint32Array(count);
  const sphereRadii = new Float32Array(count);
  const reach = new Float32Array(count);
  let sphereCount = 0;
  for (let particle = 0; particle < count; particle++) {
    const kind = kinds[particle]!;
    if (kind === HIDDEN) continue;
    const vdw = VDW_RADIUS[elements[particle] ?? 0]!;
    let radius = 0;
    if (kind === SPHERE) radius = vdw;
    else if (kind === BALL || (kind === STICK && bonded[particle] === 0)) radius = vdw * BALL_SCALE;
    else if (kind === STICK) radius = LIQUORICE;
    else if (kind === LINE && bonded[particle] === 0) radius = LINE_REACH;
    reach[particle] = radius > 0 ? radius : kind === RIBBON ? RIBBON_REACH : LINE_REACH;
    if (radius > 0) {
      spheres[sphereCount] = particle;
      sphereRadii[sphereCount] = radius;
      sphereCount++;
    }
  }
  return { spheres, sphereRadii, sphereCount, sticks, stickRadii, stickCount, lines, lineCount, reach, traces: drawnTraces };
}

function particleKinds(count: number, representation: Representation, hints: readonly RenderingHint[]): Uint8Array {
  const kinds = new Uint8Array(count).fill(CODES[representation]);
  for (const hint of hints) {
    const kind = hint.hide ? HIDDEN : hint.representation ? CODES[hint.representation] : -1;
    if (kind < 0) continue;
    if (hint.particles === null) {
      kinds.fill(kind);
      continue;
    }
    for (const particle of hint.particles) if (particle < count) kinds[particle] = kind;
  }
  return kinds;
}

/**
 * Keeps, of the traces, those whose residues are to be ribbons. Other particles that asked for a ribbon become lines where they
 * are water, and balls and sticks elsewhere.
 */
function resolveRibbons(source: DrawingSource, traces: readonly Trace[], kinds: Uint8Array): Trace[] {
  const { residues, residueNames } = source;
  const kept: Trace[] = [];
  const inRibbon = new Uint8Array(residueNames.length);
  for (const trace of traces) {
    let wanted = 0;
    for (const alpha of trace.alphas) if (kinds[alpha] === RIBBON) wanted++;
    if (wanted * 2 < trace.alphas.length || wanted === 0) continue;
    kept.push(trace);
    for (const residue of trace.residues) inRibbon[residue] = 1;
  }
  const water = Uint8Array.from(residueNames, (name) => Number(isWater(name)));
  for (let particle = 0; particle < kinds.length; particle++) {
    if (kinds[particle] !== RIBBON) continue;
    const residue = residues[particle];
    if (residue === undefined || inRibbon[residue] !== 1) {
      kinds[particle] = residue !== undefined && water[residue] === 1 ? LINE : BALL;
    }
  }
  return kept;
}
