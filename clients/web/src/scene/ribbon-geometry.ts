/**
 * The surface of a ribbon along a backbone: a smooth curve through the alpha carbons, swept by an ellipse that is wide and flat
 * in helices and strands and round in coils. Everything is written into arrays that are made once for a trace.
 */

import { assignStructure, HELIX, STRAND, type Trace } from "./backbone.ts";
import type { DrawnPositions } from "./picking.ts";

/** Rings between one residue and the next. */
export const STEPS = 8;
/** Vertices of a ring. */
export const SIDES = 10;

/** Half axes of the swept ellipse, nm. */
const COIL_AXES = [0.028, 0.028] as const;
const HELIX_AXES = [0.13, 0.026] as const;
const STRAND_AXES = [0.115, 0.024] as const;
/** Half width at the back of an arrow, nm. */
const ARROW = 0.19;
/** Of the difference to its new width, what a ribbon keeps after each drawn frame. */
const EASE = 0.8;

const COSINES = Float32Array.from({ length: SIDES }, (_, side) => Math.cos((side / SIDES) * 2 * Math.PI));
const SINES = Float32Array.from({ length: SIDES }, (_, side) => Math.sin((side / SIDES) * 2 * Math.PI));

/** How many rings a trace of so many residues has: those of its curve, and a point at either end. */
export function ringCount(residues: number): number {
  return (residues - 1) * STEPS + 3;
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

/** A point of the Catmull-Rom curve between `b` (t = 0) and `c` (t = 1). */
export function curvePoint(a: number, b: number, c: number, d: number, t: number): number {
  return b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a)));
}

/** The slope of the same curve. */
export function curveSlope(a: number, b: number, c: number, d: number, t: number): number {
  return 0.5 * (c - a + 2 * t * (2 * a - 5 * b + 4 * c - d) + 3 * t * t * (3 * (b - c) + d - a));
}

/** The moving ribbon of one trace. */
export class RibbonShape {
  readonly structure: Uint8Array;
  readonly rings: number;
  private readonly knots: Float32Array;
  /** Unit vectors across the ribbon, in the plane in which it is wide. */
  private readonly across: Float32Array;
  private readonly wide: Float32Array;
  private readonly flat: Float32Array;
  private settled = false;

  constructor(readonly trace: Trace) {
    const count = trace.alphas.length;
    this.structure = new Uint8Array(count);
    this.rings = ringCount(count);
    this.knots = new Float32Array(count * 3);
    this.across = new Float32Array(count * 3);
    this.wide = new Float32Array(count);
    this.flat = new Float32Array(count);
  }

  /** Finds helices and strands anew (positions: 3N, nm); the ribbon grows into them while it is drawn. */
  assign(positions: Float32Array): void {
    assignStructure(positions, this.trace.alphas, this.structure);
  }

  /** Writes positions (nm) and normals of all vertices, beginning at vertex `first`. */
  write(drawn: DrawnPositions, positions: Float32Array, normals: Float32Array, first: number): void {
    this.place(drawn);
    this.widen();
    const { knots, across, wide, flat } = this;
    const count = wide.length;
    let ring = 1;
    for (let residue = 0; residue < count - 1; residue++) {
      const from = Math.max(residue - 1, 0) * 3;
      const here = residue * 3;
      const next = here + 3;
      const after = Math.min(residue + 2, count - 1) * 3;
      const arrow = this.structure[residue] === STRAND && this.structure[residue + 1] !== STRAND;
      const steps = residue === count - 2 ? STEPS + 1 : STEPS;
      for (let step = 0; step < steps; step++, ring++) {
        const t = step / STEPS;
        const x = curvePoint(knots[from]!, knots[here]!, knots[next]!, knots[after]!, t);
        const y = curvePoint(knots[from + 1]!, knots[here + 1]!, knots[next + 1]!, knots[after + 1]!, t);
        const z = curvePoint(knots[from + 2]!, knots[here + 2]!, knots[next + 2]!, knots[after + 2]!, t);
        let tx = curveSlope(knots[from]!, knots[here]!, knots[next]!, knots[after]!, t);
        let ty = curveSlope(knots[from + 1]!, knots[here + 1]!, knots[next + 1]!, knots[after + 1]!, t);
        let tz = curveSlope(knots[from + 2]!, knots[here + 2]!, knots[next + 2]!, knots[after + 2]!, t);
        const slope = 1 / (Math.sqrt(tx * tx + ty * ty + tz * tz) || 1);
        tx *= slope;
        ty *= slope;
        tz *= slope;
        let ax = across[here]! + (across[next]! - across[here]!) * t;
        let ay = across[here + 1]! + (across[next + 1]! - across[here + 1]!) * t;
        let az = across[here + 2]! + (across[next + 2]! - across[here + 2]!) * t;
        const lean = ax * tx + ay * ty + az * tz;
        ax -= lean * tx;
        ay -= lean * ty;
        az -= lean * tz;
        const span = 1 / (Math.sqrt(ax * ax + ay * ay + az * az) || 1);
        ax *= span;
        ay *= span;
        az *= span;
        const bx = ty * az - tz * ay;
        const by = tz * ax - tx * az;
        const bz = tx * ay - ty * ax;
        const eased = t * t * (3 - 2 * t);
        let width = wide[residue]! + (wide[residue + 1]! - wide[residue]!) * eased;
        const height = flat[residue]! + (flat[residue + 1]! - flat[residue]!) * eased;
        // The head of an arrow takes the last residue of its strand.
        if (arrow) width = Math.max(ARROW * (wide[residue]! / STRAND_AXES[0]) * (1 - t), COIL_AXES[0]);
        this.ring(positions, normals, first + ring * SIDES, x, y, z, ax, ay, az, bx, by, bz, width, height);
        if (ring === 1) this.point(positions, normals, first, x, y, z, -tx, -ty, -tz);
        if (ring === this.rings - 2) this.point(positions, normals, first + (ring + 1) * SIDES, x, y, z, tx, ty, tz);
      }
    }
  }

  private ring(
    positions: Float32Array, normals: Float32Array, vertex: number, x: number, y: number, z: number,
    ax: number, ay: number, az: number, bx: number, by: number, bz: number, width: number, height: number,
  ): void {
    let at = vertex * 3;
    for (let side = 0; side < SIDES; side++, at += 3) {
      const u = COSINES[side]! * width;
      const v = SINES[side]! * height;
      positions[at] = x + ax * u + bx * v;
      positions[at + 1] = y + ay * u + by * v;
      positions[at + 2] = z + az * u + bz * v;
      const m = COSINES[side]! * height;
      const n = SINES[side]! * width;
      const size = 1 / Math.sqrt(m * m + n * n || 1);
      normals[at] = (ax * m + bx * n) * size;
      normals[at + 1] = (ay * m + by * n) * size;
      normals[at + 2] = (az * m + bz * n) * size;
    }
  }

  private point(
    positions: Float32Array, normals: Float32Array, vertex: number, x: number, y: number, z: number,
    nx: number, ny: number, nz: number,
  ): void {
    let at = vertex * 3;
    for (let side = 0; side < SIDES; side++, at += 3) {
      positions[at] = x;
      positions[at + 1] = y;
      positions[at + 2] = z;
      normals[at] = nx;
      normals[at + 1] = ny;
      normals[at + 2] = nz;
    }
  }

  /** Knots of the curve and directions across it, from where the particles are drawn. */
  private place({ before, after, fraction }: DrawnPositions): void {
    const { knots, across } = this;
    const { alphas, oxygens } = this.trace;
    const count = alphas.length;
    for (let residue = 0, to = 0; residue < count; residue++, to += 3) {
      const alpha = alphas[residue]! * 3;
      const oxygen = oxygens[residue]! * 3;
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

  private widen(): void {
    const keep = this.settled ? EASE : 0;
    for (let residue = 0; residue < this.wide.length; residue++) {
      const kind = this.structure[residue];
      const axes = kind === HELIX ? HELIX_AXES : kind === STRAND ? STRAND_AXES : COIL_AXES;
      this.wide[residue] = axes[0] + (this.wide[residue]! - axes[0]) * keep;
      this.flat[residue] = axes[1] + (this.flat[residue]! - axes[1]) * keep;
    }
    this.settled = true;
  }
}
