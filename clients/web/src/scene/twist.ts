/** Two fingers that turn around each other. */

/** Fingers that only move or part turn a little, too, radians. */
const MEANT = 0.15;

export class Twist {
  #sum = 0;

  /** Other fingers begin. */
  reset(): void {
    this.#sum = 0;
  }

  /** How far to turn, radians, once they have turned far enough to mean it; `from` and `to` are directions on the screen. */
  by(from: number, to: number): number {
    const turn = Math.atan2(Math.sin(to - from), Math.cos(to - from));
    this.#sum += turn;
    return Math.abs(this.#sum) > MEANT ? turn : 0;
  }
}
