/** Energies, temperature and the like, each as its newest value and its course. */

import type { Frame } from "../contracts.ts";
import { make } from "./elements.ts";
import { Plot, QUANTITIES } from "./plots.ts";

export class Values {
  readonly element: HTMLDListElement;
  readonly #plots = Object.values(QUANTITIES).map((quantity) => new Plot(quantity));
  #serial = -1;

  constructor() {
    this.element = make("dl", { className: "plots" }, ...this.#plots.map((plot) => plot.element));
  }

  /** The values of a frame that has come are kept. */
  note(frame: Frame | null): void {
    if (frame === null || frame.serial === this.#serial) return;
    this.#serial = frame.serial;
    for (const { quantity, series } of this.#plots) {
      if (quantity.key === null) continue;
      if (frame.index === 0) series.clear();
      const value = frame.values[quantity.key];
      series.push(typeof value === "number" ? value : NaN);
    }
  }

  /** What is measured here is kept. */
  measured(fps: number): void {
    for (const { quantity, series } of this.#plots) if (quantity.key === null) series.push(fps);
  }

  draw(): void {
    for (const plot of this.#plots) plot.draw();
  }
}
