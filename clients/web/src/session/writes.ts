/** Writes to the shared state that wait for the next animation frame, merged. */

export class WriteBuffer {
  #updates = new Map<string, unknown>();
  #removals = new Set<string>();

  get empty(): boolean {
    return this.#updates.size === 0 && this.#removals.size === 0;
  }

  /** Of one key, what comes last counts. */
  add(updates: Readonly<Record<string, unknown>>, removals: readonly string[] = []): void {
    for (const key of Object.keys(updates)) {
      this.#removals.delete(key);
      this.#updates.set(key, updates[key]);
    }
    for (const key of removals) {
      this.#updates.delete(key);
      this.#removals.add(key);
    }
  }

  /** All that waits, which then waits no more. */
  take(): { updates: Record<string, unknown>; removals: string[] } {
    const taken = { updates: Object.fromEntries(this.#updates), removals: [...this.#removals] };
    this.#updates.clear();
    this.#removals.clear();
    return taken;
  }

  /** Only removals still wait: a value that was true some time ago need not be now. */
  dropUpdates(): void {
    this.#updates.clear();
  }
}
