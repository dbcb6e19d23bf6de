/** How the box is moved with the hands: carried by one, and moved, turned and stretched between two. */

import { Matrix4, Quaternion, Vector3 } from "three";

const MIN_REACH = 1e-4;

const before = new Vector3();
const after = new Vector3();
const middle = new Vector3();
const turn = new Quaternion();
const size = new Vector3();
const step = new Matrix4();

/** What carries a thing along with a hand that was at `start` and is at `now`, written to `out`. */
export function oneHandTransform(start: Matrix4, now: Matrix4, out: Matrix4): Matrix4 {
  return out.copy(start).invert().premultiply(now);
}

/**
 * The movement, turn and uniform stretch that take hands at `a0` and `b0` to `a1` and `b1`, without a twist about the line
 * between them, written to `out`. Hands that began in one place only move things.
 *
 * @param minScale The stretch is held between this
 * @param maxScale and this.
 */
export function twoHandTransform(
  a0: Vector3,
  b0: Vector3,
  a1: Vector3,
  b1: Vector3,
  minScale: number,
  maxScale: number,
  out: Matrix4,
): Matrix4 {
  before.subVectors(b0, a0);
  after.subVectors(b1, a1);
  const from = before.length();
  const to = after.length();
  if (from < MIN_REACH || to < MIN_REACH) {
    turn.identity();
    size.setScalar(1);
  } else {
    turn.setFromUnitVectors(before.divideScalar(from), after.divideScalar(to));
    size.setScalar(Math.min(maxScale, Math.max(minScale, to / from)));
  }
  out.compose(middle.addVectors(a1, b1).multiplyScalar(0.5), turn, size);
  middle.addVectors(a0, b0).multiplyScalar(-0.5);
  return out.multiply(step.makeTranslation(middle));
}
