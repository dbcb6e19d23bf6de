/** How fast frames are drawn, and how finely they can be drawn, while things move, to keep that fast enough. */

const SLOW_MS = 40;
const SLOW_FRAMES = 20;
const COARSEST = 0.5;
const STEP = 0.8;
/** What has not moved for so long is drawn as finely as can be, ms. */
const STILL_AFTER_MS = 400;

export class FrameRate {
  private intervalMs = 0;
  private workMs = 0;
  private slow = 0;
  private lastMs = Number.NaN;
  private movedAt = Number.NEGATIVE_INFINITY;
  private moving = false;
  private coarse = 1;

  /** A frame is begun; `moved` says whether it is another picture than the last. */
  begin(timeMs: number, moved: boolean): void {
    if (moved) this.movedAt = timeMs;
    this.moving = timeMs - this.movedAt < STILL_AFTER_MS;
    const interval = timeMs - this.lastMs;
    this.lastMs = timeMs;
    // After a pause, such as in a tab that is not seen, the gap says nothing.
    if (!(interval > 0 && interval < 1000)) return;
    this.intervalMs += (interval - this.intervalMs) * (this.intervalMs === 0 ? 1 : 0.06);
    this.slow = interval > SLOW_MS && this.moving ? this.slow + 1 : 0;
    if (this.slow < SLOW_FRAMES) return;
    this.slow = 0;
    this.coarse = Math.max(this.coarse * STEP, COARSEST);
  }

  /** It took so long on the processor, ms. */
  end(workMs: number): void {
    this.workMs += (workMs - this.workMs) * (this.workMs === 0 ? 1 : 0.06);
  }

  /** Something else is drawn from now on, and may be faster. */
  restart(): void {
    this.coarse = 1;
    this.slow = 0;
  }

  /** The part of the canvas's own resolution at which to draw. */
  get scale(): number {
    return this.moving ? this.coarse : 1;
  }

  get fps(): number {
    return this.intervalMs > 0 ? 1000 / this.intervalMs : 0;
  }

  get frameMs(): number {
    return this.workMs;
  }
}
