/** What is close to a hand, and where the system is. */

import type { Frame } from "../contracts.ts";
import type { ReadonlyPoint } from "./drag.ts";

/** The particle nearest to a point of simulation space and no further than `reach`, nm; -1 for none. */
export function nearestParticle(frame: Frame, point: ReadonlyPoint, reach: number): number {
  const { positions } = frame;
  const count = Math.min(frame.particleCount, Math.floor(positions.length / 3));
  let best = -1;
  let bestSquare = reach * reach;
  for (let i = 0, at = 0; i < count; i++, at += 3) {
    const x = positions[at]! - point[0];
    const y = positions[at + 1]! - point[1];
    const z = positions[at + 2]! - point[2];
    const square = x * x + y * y + z * z;
    if (square <= bestSquare) {
      best = i;
      bestSquare = square;
    }
  }
  return best;
}

export interface Extent {
  readonly centre: ReadonlyPoint;
  /** Half of the longest side, nm. */
  readonly radius: number;
}

/** The box around all particles; that of one nanometre around the origin without any. */
export function extentOf(frame: Frame | null): Extent {
  const low = [Infinity, Infinity, Infinity];
  const high = [-Infinity, -Infinity, -Infinity];
  const { positions, particleCount } = frame ?? { positions: new Float32Array(), particleCount: 0 };
  const count = 3 * Math.min(particleCount, Math.floor(positions.length / 3));
  for (let i = 0; i < count; i++) {
    const axis = i % 3;
    const value = positions[i]!;
    if (value < low[axis]!) low[axis] = value;
    if (value > high[axis]!) high[axis] = value;
  }
  const sides = high.map((value, axis) => value - low[axis]!);
  if (!sides.every((side) => Number.isFinite(side))) return { centre: [0, 0, 0], radius: 0.5 };
  const [x, y, z] = low.map((value, axis) => value + sides[axis]! / 2) as [number, number, number];
  return { centre: [x, y, z], radius: Math.max(0.1, ...sides.map((side) => side / 2)) };
}
