/**
 * What a ribbon is made of: where its knots are, which way it is wide there, and how wide. The curve between knots, and the ellipse
 * that is swept along it, are the vertex shader's; what changes from frame to frame is a few numbers for each residue.
 */

import { assignStructure, HELIX, STRAND, type Trace } from "./backbone.ts";
import type { DrawnPositions } from "./picking.ts";

/** Rings between one residue and the next. */
export const STEPS = 8;
/** Vertices of a ring. */
export const SIDES = 10;
/** Numbers of a residue: knot and half width; direction across and half height, negative before the head of an arrow; colour. */
export const PER_KNOT = 12;

/** Half axes of the swept ellipse, nm. */
export const COIL_AXES = [0.028, 0.028] as const;
const HELIX_AXES = [0.13, 0.026] as const;
export const STRAND_AXES = [0.115, 0.024] as const;
/** Of the difference to its new shape, what a ribbon keeps after each drawn frame. */
const EASE = 0.8;

/** What a vertex is, beside its step (bits 0 to 3) and side (4 to 7) after a residue. */
export const FIRST_POINT = 1 << 8;
export const LAST_POINT = 1 << 9;
export const HAS_BEFORE = 1 << 10;
export const HAS_AFTER = 1 << 11;

/** How many rings a trace of so many residues has: those of its curve, and a point at either end. */
export function ringCount(residues: number): number {
  return (residues - 1) * STEPS + 3;
}

/** Writes two numbers for each vertex of a trace whose first residue is `first`: the residue that it is after, and what it is. */
export function writeVertices(vertices: Uint32Array, at: number, first: number, residues: number): number {
  const rings = ringCount(residues);
  for (let ring = 0; ring < rings; ring++) {
    const along = Math.min(Math.max(ring - 1, 0), rings - 3);
    const residue = Math.min(Math.floor(along / STEPS), residues - 2);
    const bits =
      (along - residue * STEPS) |
      (ring === 0 ? FIRST_POINT : ring === rings - 1 ? LAST_POINT : 0) |
      (residue > 0 ? HAS_BEFORE : 0) |
      (residue + 2 < residues ? HAS_AFTER : 0);
    for (let side = 0; side < SIDES; side++) {
      vertices[at++] = first + residue;
      vertices[at++] = bits | (side << 4);
    }
  }
  return at;
}

/** Triangles between the rings of a trace whose first vertex is `first`. */
export function writeTriangles(index: Uint32Array, at: number, first: number, rings: number): number {
  for (let ring = 0; ring + 1 < rings; ring++) {
    for (let side = 0; side < SIDES; side++) {
      const next = (side + 1) % SIDES;
      const a = first + ring * SIDES + side;
      const b = first + ring * SIDES + next;
      const c = a + SIDES;
      const d = b + SIDES;
      index[at++] = a;
      index[at++] = b;
      index[at++] = c;
      index[at++] = b;
      index[at++] = d;
      index[at++] = c;
    }
  }
  return at;
}

/** The moving ribbon of one trace. */
export class RibbonShape {
  readonly structure: Uint8Array;
  readonly rings: number;
  private readonly alphas: Float32Array;
  /** Unit vectors across the ribbon, in the plane in which it is wide. */
  private readonly across: Float32Array;
  private readonly wide: Float32Array;
  private readonly flat: Float32Array;
  /** How much of the zigzag of its residues is taken out of it: 1 in strands. */
  private readonly straight: Float32Array;
  private settled = false;

  constructor(readonly trace: Trace) {
    const count = trace.alphas.length;
    this.structure = new Uint8Array(count);
    this.rings = ringCount(count);
    this.alphas = new Float32Array(count * 3);
    this.across = new Float32Array(count * 3);
    this.wide = new Float32Array(count);
    this.flat = new Float32Array(count);
    this.straight = new Float32Array(count);
  }

  /** Finds helices and strands anew (positions: 3N, nm); the ribbon grows into them while it is drawn. */
  assign(positions: Float32Array): void {
    assignStructure(positions, this.trace.alphas, this.structure);
  }

  /** Writes the knots (nm) as they are drawn now, all but their colours, beginning with residue `first`. */
  write(drawn: DrawnPositions, knots: Float32Array, first: number): void {
    this.place(drawn);
    this.ease();
    const { alphas, across, wide, flat, straight, structure } = this;
    const count = wide.length;
    for (let residue = 0, to = first * PER_KNOT; residue < count; residue++, to += PER_KNOT) {
      const here = residue * 3;
      const inner = residue > 0 && residue < count - 1;
      const part = inner ? 0.25 * straight[residue]! : 0;
      for (let axis = 0; axis < 3; axis++) {
        const at = here + axis;
        knots[to + axis] = alphas[at]! + (inner ? part * (alphas[at - 3]! + alphas[at + 3]! - 2 * alphas[at]!) : 0);
        knots[to + 4 + axis] = across[at]! + (inner ? part * (across[at - 3]! + across[at + 3]! - 2 * across[at]!) : 0);
      }
      // The head of an arrow takes the last residue of its strand; before the end of a trace, the last but one.
      const arrow = inner && structure[residue] === STRAND && (structure[residue + 1] !== STRAND || residue === count - 2);
      knots[to + 3] = wide[residue]!;
      knots[to + 7] = arrow ? -flat[residue]! : flat[residue]!;
    }
  }

  /** Alpha carbons and directions across it, from where the particles are drawn. */
  private place({ before, after, fraction }: DrawnPositions): void {
    const { alphas: knots, across } = this;
    const { trace } = this;
    const count = trace.alphas.length;
    for (let residue = 0, to = 0; residue < count; residue++, to += 3) {
      const alpha = trace.alphas[residue]! * 3;
      const oxygen = trace.oxygens[residue]! * 3;
      for (let axis = 0; axis < 3; axis++) {
        const here = before[alpha + axis]! + (after[alpha + axis]! - before[alpha + axis]!) * fraction;
        knots[to + axis] = here;
        across[to + axis] = before[oxygen + axis]! + (after[oxygen + axis]! - before[oxygen + axis]!) * fraction - here;
      }
    }
    for (let residue = 0, to = 0; residue < count; residue++, to += 3) {
      const from = Math.max(residue - 1, 0) * 3;
      const next = Math.min(residue + 1, count - 1) * 3;
      const tx = knots[next]! - knots[from]!;
      const ty = knots[next + 1]! - knots[from + 1]!;
      const tz = knots[next + 2]! - knots[from + 2]!;
      let ax: number;
      let ay: number;
      let az: number;
      if (this.structure[residue] === HELIX && residue > 0 && residue < count - 1) {
        // The flat side of a helix faces its axis: across is along the axis, square to the curve and its bend.
        const bx = knots[next]! + knots[from]! - 2 * knots[to]!;
        const by = knots[next + 1]! + knots[from + 1]! - 2 * knots[to + 1]!;
        const bz = knots[next + 2]! + knots[from + 2]! - 2 * knots[to + 2]!;
        ax = ty * bz - tz * by;
        ay = tz * bx - tx * bz;
        az = tx * by - ty * bx;
      } else {
        ax = across[to]!;
        ay = across[to + 1]!;
        az = across[to + 2]!;
        const lean = (ax * tx + ay * ty + az * tz) / (tx * tx + ty * ty + tz * tz || 1);
        ax -= lean * tx;
        ay -= lean * ty;
        az -= lean * tz;
      }
      let size = Math.sqrt(ax * ax + ay * ay + az * az);
      if (!(size > 1e-6)) {
        // Any direction square to the curve will do.
        const flattest = Math.abs(tx) < Math.abs(tz);
        ax = flattest ? 0 : -ty;
        ay = flattest ? -tz : tx;
        az = flattest ? ty : 0;
        size = Math.sqrt(ax * ax + ay * ay + az * az) || 1;
      }
      // Carbonyls of neighbours in a strand point opposite ways; the ribbon must not turn over with them.
      const turned = residue > 0 && ax * across[to - 3]! + ay * across[to - 2]! + az * across[to - 1]! < 0 ? -1 : 1;
      across[to] = (ax / size) * turned;
      across[to + 1] = (ay / size) * turned;
      across[to + 2] = (az / size) * turned;
    }
  }

  private ease(): void {
    const keep = this.settled ? EASE : 0;
    for (let residue = 0; residue < this.wide.length; residue++) {
      const kind = this.structure[residue];
      const axes = kind === HELIX ? HELIX_AXES : kind === STRAND ? STRAND_AXES : COIL_AXES;
      const straight = Number(kind === STRAND);
      this.wide[residue] = axes[0] + (this.wide[residue]! - axes[0]) * keep;
      this.flat[residue] = axes[1] + (this.flat[residue]! - axes[1]) * keep;
      this.straight[residue] = straight + (this.straight[residue]! - straight) * keep;
    }
    this.settled = true;
  }
}
