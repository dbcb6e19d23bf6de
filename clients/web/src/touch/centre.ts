/** The mass-weighted centre of what is pulled, as the forces see it: where several particles are held, that is what is pulled. */

import type { Frame } from "../contracts.ts";
import { set, type Point } from "./drag.ts";

/** Of larger groups every n-th particle stands for all: enough to see where the centre is. */
const MAX_SAMPLES = 4096;

/** Standard atomic weights by atomic number, amu; 0 stands for a particle of no element. */
const WEIGHTS = new Float32Array([
  1, 1.008, 4.0026, 6.94, 9.0122, 10.81, 12.011, 14.007, 15.999, 18.998, 20.18, 22.99, 24.305, 26.982, 28.085, 30.974, 32.06, 35.45,
  39.95, 39.098, 40.078, 44.956, 47.867, 50.942, 51.996, 54.938, 55.845, 58.933, 58.693, 63.546, 65.38, 69.723, 72.63, 74.922, 78.971,
  79.904, 83.798, 85.468, 87.62, 88.906, 91.224, 92.906, 95.95, 97, 101.07, 102.91, 106.42, 107.87, 112.41, 114.82, 118.71, 121.76,
  127.6, 126.9, 131.29, 132.91, 137.33, 138.91, 140.12, 140.91, 144.24, 145, 150.36, 151.96, 157.25, 158.93, 162.5, 164.93, 167.26,
  168.93, 173.05, 174.97, 178.49, 180.95, 183.84, 186.21, 190.23, 192.22, 195.08, 196.97, 200.59, 204.38, 207.2, 208.98, 209, 210,
  222, 223, 226, 227, 232.04, 231.04, 238.03,
]);

/** Gives where a particle is; may write to `out` and return it. */
export type PositionOf = (particle: number, out: Point) => Point;

const here: Point = [0, 0, 0];
const first: Point = [0, 0, 0];

/**
 * Writes to `out` the mass-weighted centre of the particles, nm. In a box, the group is put together around its first particle
 * beforehand, so that one that straddles the boundary has its centre where it is and not in the middle of the box.
 *
 * @returns Whether there was one: false without particles in the frame.
 */
export function centreOf(particles: readonly number[], frame: Frame, positionOf: PositionOf, out: Point): boolean {
  const stride = Math.max(1, Math.ceil(particles.length / MAX_SAMPLES));
  let total = 0;
  let x = 0;
  let y = 0;
  let z = 0;
  for (let i = 0; i < particles.length; i += stride) {
    const particle = particles[i]!;
    if (!(particle >= 0 && particle < frame.particleCount)) continue;
    const position = positionOf(particle, here);
    const mass = weightOf(frame.elements[particle]);
    if (total === 0) set(first, position[0], position[1], position[2]);
    else if (frame.box !== null) {
      set(here, position[0] - first[0], position[1] - first[1], position[2] - first[2]);
      shorten(here, frame.box);
      set(here, here[0] + first[0], here[1] + first[1], here[2] + first[2]);
    } else set(here, position[0], position[1], position[2]);
    const at = total === 0 ? first : here;
    x += at[0] * mass;
    y += at[1] * mass;
    z += at[2] * mass;
    total += mass;
  }
  if (total === 0) return false;
  set(out, x / total, y / total, z / total);
  return Number.isFinite(out[0]) && Number.isFinite(out[1]) && Number.isFinite(out[2]);
}

/** Takes whole box vectors (rows of a reduced triclinic box, the third along z) from a difference until it is the short way. */
export function shorten(difference: Point, box: Float32Array): void {
  for (let row = 2; row >= 0; row--) {
    const length = box[row * 4]!;
    if (!(length > 0)) continue;
    const turns = Math.round(difference[row]! / length);
    if (turns === 0) continue;
    for (let axis = 0; axis < 3; axis++) difference[axis] = difference[axis]! - turns * box[row * 3 + axis]!;
  }
}

function weightOf(element: number | undefined): number {
  return (element === undefined ? undefined : WEIGHTS[element]) ?? 1;
}
