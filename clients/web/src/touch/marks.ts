/** What is marked here, atom by atom or more at a time, to become a selection. */

import type { MarkControl, MarkUnit } from "../contracts.ts";

export class Marks implements MarkControl {
  /** Ascending. */
  particles: readonly number[] = [];
  unit: MarkUnit = "atom";
  #active = false;
  readonly #listeners = new Set<() => void>();

  /** @param here Marks what is under the pointer, or in the middle. */
  constructor(private readonly onHere: () => void) {}

  get active(): boolean {
    return this.#active;
  }

  set active(active: boolean) {
    if (active === this.#active) return;
    this.#active = active;
    this.#tell();
  }

  here(): void {
    this.onHere();
  }

  set(particles: readonly number[]): void {
    if (particles.length === 0 && this.particles.length === 0) return;
    this.particles = [...new Set(particles)].sort((a, b) => a - b);
    this.#tell();
  }

  /** These are marked; or, where all of them were, are not any more. */
  toggle(particles: readonly number[]): void {
    const marked = new Set(this.particles);
    if (particles.every((one) => marked.has(one))) for (const one of particles) marked.delete(one);
    else for (const one of particles) marked.add(one);
    this.set([...marked]);
  }

  on(listener: () => void): () => void {
    this.#listeners.add(listener);
    return () => this.#listeners.delete(listener);
  }

  #tell(): void {
    for (const listener of this.#listeners) listener();
  }
}
