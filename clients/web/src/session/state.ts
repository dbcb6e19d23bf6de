/** A copy of the session's shared state. */

export class StateCopy {
  readonly values = new Map<string, unknown>();
  #fresh = false;

  /** The next change is whole: nothing of what was there before it stays. */
  startOver(): void {
    this.#fresh = true;
  }

  /** Whether anything is another than it was. */
  apply(updates: Readonly<Record<string, unknown>>, removals: readonly string[]): boolean {
    let changed = this.#fresh && this.values.size > 0;
    if (this.#fresh) this.values.clear();
    this.#fresh = false;
    for (const key of removals) changed = this.values.delete(key) || changed;
    for (const key of Object.keys(updates)) {
      this.values.set(key, updates[key]);
      changed = true;
    }
    return changed;
  }
}
