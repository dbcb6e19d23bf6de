/** Whether the simulation goes on. */

import type { Frame } from "../contracts.ts";

/** The simulation is taken to stand still when nothing has changed for so long, ms. */
const PATIENCE_MS = 1200;
/** After a button was pressed, what it should come to is shown for so long, ms. */
const TRUST_MS = 1500;
/** Between questions, ms. */
const ASK_AGAIN_MS = 500;

/** Whether the simulation's time is another than a moment ago. */
export class Progress {
  #time: unknown = null;
  #movedAt = -Infinity;

  constructor(readonly patienceMs: number) {}

  /** Looks at the newest frame, and says whether it runs. */
  runs(frame: Frame | null, now: number): boolean {
    const time = frame === null ? null : (frame.values["system.simulation.step"] ?? frame.values["system.simulation.time"] ?? frame.serial);
    if (time !== this.#time) {
      if (this.#time !== null) this.#movedAt = now;
      this.#time = time;
    }
    return now - this.#movedAt < this.patienceMs;
  }
}

/**
 * Whether it runs, as the server has told. Frames only say when to ask again: those of a slow simulation come seldom, and one
 * comes of each step of one that stands still. Where the server cannot tell, the frames have to do.
 */
export class Running {
  readonly #progress = new Progress(PATIENCE_MS);
  #told: boolean | null = null;
  #answers = true;
  #askedAt = -Infinity;
  #meant: { readonly runs: boolean; readonly until: number } | null = null;
  #seen = false;

  /** Whether it runs; null where that is not known yet. */
  look(frame: Frame | null, now: number): boolean | null {
    this.#seen = this.#progress.runs(frame, now);
    const runs = this.#answers ? this.#told : this.#seen;
    if (this.#meant !== null && (runs === this.#meant.runs || now > this.#meant.until)) this.#meant = null;
    return this.#meant?.runs ?? runs;
  }

  /** Whether it is time to ask; if so, it is being asked. */
  asks(now: number): boolean {
    if (!this.#answers || this.#told === this.#seen || now - this.#askedAt < ASK_AGAIN_MS) return false;
    this.#askedAt = now;
    return true;
  }

  /** The server has answered. */
  told(plays: boolean): void {
    this.#told = plays;
  }

  /** The server cannot answer this. */
  unanswered(): void {
    this.#answers = false;
  }

  /** Somebody here has pressed what should come to this. */
  mean(runs: boolean, now: number): void {
    this.#meant = { runs, until: now + TRUST_MS };
    this.#askedAt = now;
  }

  /** What they pressed did not come to it. */
  failed(): void {
    this.#meant = null;
  }

  /** Another server, perhaps: nothing is known. */
  forget(): void {
    this.#told = null;
    this.#answers = true;
    this.#askedAt = -Infinity;
    this.#meant = null;
  }
}
