/** Motion between frames: where particles are drawn from the last two sets of positions, and when. */

const SHORTEST_MS = 8;
const LONGEST_MS = 250;
const FIRST_MS = 40;
/** Arrivals jitter; drawing the movement a little longer than the mean interval keeps it from halting between frames. */
const STRETCH = 1.15;

/** Tells how far the movement to the newest frame has come, from when frames arrived. */
export class ArrivalClock {
  private arrivedAt = Number.NEGATIVE_INFINITY;
  private interval = FIRST_MS;

  /** A frame arrived; all further fractions are of the way to it. */
  arrive(timeMs: number): void {
    const gap = timeMs - this.arrivedAt;
    // A pause says nothing about the rate that follows it.
    if (gap > 0 && gap <= LONGEST_MS * 2) {
      const bounded = Math.min(Math.max(gap, SHORTEST_MS), LONGEST_MS);
      this.interval += (bounded - this.interval) * 0.2;
    }
    this.arrivedAt = timeMs;
  }

  /** 0 where the particles were when it arrived, 1 where the newest frame has them. */
  fraction(timeMs: number): number {
    const fraction = (timeMs - this.arrivedAt) / (this.interval * STRETCH);
    return fraction >= 1 ? 1 : fraction > 0 ? fraction : 0;
  }

  /** The mean interval between frames, ms. */
  get intervalMs(): number {
    return this.interval;
  }
}

/**
 * Starts the movement to `next`: afterwards `before` holds what was drawn at `fraction` and `after` the new positions. Particles
 * that would move by more than `jump` (across a periodic boundary, say) are put there at once.
 *
 * @param before 3N or more, nm, written to. @param after 3N or more, nm, written to. @param next 3N, nm.
 */
export function startMovement(
  before: Float32Array,
  after: Float32Array,
  fraction: number,
  next: Float32Array,
  count: number,
  jump: number,
): void {
  const limit = jump * jump;
  const length = count * 3;
  for (let at = 0; at < length; at += 3) {
    let x = before[at]!;
    let y = before[at + 1]!;
    let z = before[at + 2]!;
    x += (after[at]! - x) * fraction;
    y += (after[at + 1]! - y) * fraction;
    z += (after[at + 2]! - z) * fraction;
    const nx = next[at]!;
    const ny = next[at + 1]!;
    const nz = next[at + 2]!;
    const dx = nx - x;
    const dy = ny - y;
    const dz = nz - z;
    // Written so that a position that is not a number is a jump.
    const near = dx * dx + dy * dy + dz * dz <= limit;
    before[at] = near ? x : nx;
    before[at + 1] = near ? y : ny;
    before[at + 2] = near ? z : nz;
    after[at] = nx;
    after[at + 1] = ny;
    after[at + 2] = nz;
  }
}

/** The longest movement (nm) that is drawn as one: half the shortest box vector, or 1 nm without a box. */
export function jumpLimit(box: Float32Array | null): number {
  const shortest = shortestVector(box);
  return shortest > 0 ? Math.min(shortest / 2, 1) : 1;
}

/** Length (nm) of the shortest box vector; 0 without a box. */
export function shortestVector(box: Float32Array | null): number {
  if (!box || box.length < 9) return 0;
  const length = Math.min(
    Math.hypot(box[0]!, box[1]!, box[2]!),
    Math.hypot(box[3]!, box[4]!, box[5]!),
    Math.hypot(box[6]!, box[7]!, box[8]!),
  );
  return Number.isFinite(length) ? length : 0;
}
