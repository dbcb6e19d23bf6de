/** Which particle a ray meets. */

import type { Hit, Ray } from "../contracts.ts";

/** Positions as they are drawn: `fraction` of the way from `before` to `after` (3N or more, nm). */
export interface DrawnPositions {
  readonly before: Float32Array;
  readonly after: Float32Array;
  readonly fraction: number;
  readonly count: number;
}

/**
 * The nearest particle whose sphere the ray meets; where it meets none, the one that it misses by the least, up to `slack` (nm).
 *
 * @param radii N, nm; particles of radius 0 or less are passed over.
 * @param slackPerNm How much the slack grows with each nm of distance (a pixel's span under a perspective camera).
 */
export function pickParticle(
  ray: Ray,
  drawn: DrawnPositions,
  radii: Float32Array,
  slack: number,
  slackPerNm = 0,
): Hit | null {
  const [ox, oy, oz] = ray.origin;
  const length = Math.hypot(...ray.direction);
  if (!(length > 0)) return null;
  const dx = ray.direction[0] / length;
  const dy = ray.direction[1] / length;
  const dz = ray.direction[2] / length;
  const { before, after, fraction, count } = drawn;
  let hit = -1;
  let hitDistance = Number.POSITIVE_INFINITY;
  let close = -1;
  let closeDistance = 0;
  let closeGap = Number.POSITIVE_INFINITY;
  for (let particle = 0, at = 0; particle < count; particle++, at += 3) {
    const radius = radii[particle]!;
    if (radius <= 0) continue;
    const x = before[at]! + (after[at]! - before[at]!) * fraction - ox;
    const y = before[at + 1]! + (after[at + 1]! - before[at + 1]!) * fraction - oy;
    const z = before[at + 2]! + (after[at + 2]! - before[at + 2]!) * fraction - oz;
    const along = x * dx + y * dy + z * dz;
    const reach = radius + slack + slackPerNm * (along > 0 ? along : 0);
    if (!(along > -radius) || along - radius > hitDistance) continue;
    const px = x - along * dx;
    const py = y - along * dy;
    const pz = z - along * dz;
    const apart = px * px + py * py + pz * pz;
    if (!(apart <= reach * reach)) continue;
    if (apart <= radius * radius) {
      const half = Math.sqrt(radius * radius - apart);
      // From within a sphere its far side is what the ray meets.
      const distance = along - half >= 0 ? along - half : along + half;
      if (distance >= 0 && distance < hitDistance) {
        hit = particle;
        hitDistance = distance;
      }
    } else if (hit < 0 && along >= 0) {
      const gap = Math.sqrt(apart) - radius;
      if (gap < closeGap || (gap === closeGap && along < closeDistance)) {
        close = particle;
        closeGap = gap;
        closeDistance = along;
      }
    }
  }
  const particle = hit >= 0 ? hit : close;
  if (particle < 0) return null;
  const distance = hit >= 0 ? hitDistance : closeDistance;
  return { particle, point: [ox + dx * distance, oy + dy * distance, oz + dz * distance], distance };
}
