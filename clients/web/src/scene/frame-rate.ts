/** How fast frames are drawn, and how finely they can be drawn to keep that fast enough. */

const SLOW_MS = 45;
const SLOW_FRAMES = 20;
const COARSEST = 0.6;
const STEP = 0.8;

export class FrameRate {
  private intervalMs = 0;
  private workMs = 0;
  private slow = 0;
  private lastMs = Number.NaN;

  /** A frame is begun. Returns whether so many have been slow that it should be drawn more coarsely. */
  begin(timeMs: number): boolean {
    const interval = timeMs - this.lastMs;
    this.lastMs = timeMs;
    // After a pause, such as in a tab that is not seen, the gap says nothing.
    if (!(interval > 0 && interval < 1000)) return false;
    this.intervalMs += (interval - this.intervalMs) * (this.intervalMs === 0 ? 1 : 0.06);
    this.slow = interval > SLOW_MS ? this.slow + 1 : 0;
    if (this.slow < SLOW_FRAMES) return false;
    this.slow = 0;
    return true;
  }

  /** It took so long on the processor, ms. */
  end(workMs: number): void {
    this.workMs += (workMs - this.workMs) * (this.workMs === 0 ? 1 : 0.06);
  }

  get fps(): number {
    return this.intervalMs > 0 ? 1000 / this.intervalMs : 0;
  }

  get frameMs(): number {
    return this.workMs;
  }
}

/** The next coarser resolution: a part of the canvas's own. */
export function coarser(scale: number): number {
  return Math.max(scale * STEP, COARSEST);
}
