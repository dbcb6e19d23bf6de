/** Lets something happen at most so often. */
export class RateLimit {
  private last = Number.NEGATIVE_INFINITY;

  /** @param perSecond At most so many times a second. */
  constructor(private readonly perSecond: number) {}

  /** Whether it may happen now; if so, it has. */
  take(nowMs: number): boolean {
    if (nowMs - this.last < 1000 / this.perSecond) return false;
    this.last = nowMs;
    return true;
  }

  /** The next one may happen at once. */
  reset(): void {
    this.last = Number.NEGATIVE_INFINITY;
  }
}
