/** Small plots of the newest values. */

import { make, setText } from "./elements.ts";

/** The last values of one quantity, oldest first, in memory that is taken once. */
export class Series {
  readonly #values: Float64Array;
  #next = 0;
  length = 0;

  constructor(capacity: number) {
    this.#values = new Float64Array(capacity);
  }

  push(value: number): void {
    this.#values[this.#next] = value;
    this.#next = (this.#next + 1) % this.#values.length;
    this.length = Math.min(this.length + 1, this.#values.length);
  }

  /** The value `at` places after the oldest. */
  at(at: number): number {
    const capacity = this.#values.length;
    return this.#values[(this.#next - this.length + at + capacity) % capacity]!;
  }

  get last(): number {
    return this.length === 0 ? NaN : this.at(this.length - 1);
  }

  clear(): void {
    this.length = 0;
  }

  /** The least and the greatest finite value; 0 and 1 where there is none. */
  range(out: [number, number]): [number, number] {
    out[0] = Infinity;
    out[1] = -Infinity;
    for (let at = 0; at < this.length; at += 1) {
      const value = this.at(at);
      if (!Number.isFinite(value)) continue;
      if (value < out[0]) out[0] = value;
      if (value > out[1]) out[1] = value;
    }
    if (out[0] > out[1]) [out[0], out[1]] = [0, 1];
    return out;
  }
}

export interface Quantity {
  readonly label: string;
  readonly unit: string;
  readonly digits: number;
  /** Its key in frames; null for what is measured here. */
  readonly key: string | null;
}

export const QUANTITIES: Readonly<Record<"potential" | "kinetic" | "temperature" | "work" | "fps", Quantity>> = {
  potential: { label: "Potential energy", unit: "kJ/mol", digits: 0, key: "energy.potential" },
  kinetic: { label: "Kinetic energy", unit: "kJ/mol", digits: 0, key: "energy.kinetic" },
  temperature: { label: "Temperature", unit: "K", digits: 0, key: "system.temperature" },
  work: { label: "Work by users", unit: "kJ/mol", digits: 1, key: "forces.user.work_done" },
  fps: { label: "Drawn", unit: "frames/s", digits: 0, key: null },
};

/** A number for a person: with so many digits, large ones shortened. */
export function shownNumber(value: number, digits: number): string {
  if (!Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6) return value.toExponential(2).replace("e+", "e");
  const text = value.toFixed(size >= 1e4 ? 0 : digits);
  return (Number(text) === 0 ? text.replace("-", "") : text).replace("-", "−");
}

/** Fewer values than this do not fill the width, so that the first few are not stretched across it. */
const FEWEST = 20;

/** Where the value `at` places after the oldest of `length` is drawn: the newest at the right, and all there are across the width. */
export function courseX(at: number, length: number, width: number): number {
  return width - ((length - 1 - at) / (Math.max(length, FEWEST) - 1)) * width;
}

/** One quantity: its name, its value, and its course. */
export class Plot {
  readonly element: HTMLDivElement;
  readonly series = new Series(240);
  readonly #value: HTMLElement;
  readonly #canvas: HTMLCanvasElement;
  readonly #range: [number, number] = [0, 1];

  constructor(readonly quantity: Quantity) {
    this.#value = make("dd", { textContent: "–" });
    this.#canvas = make("canvas", { width: 240, height: 32, attributes_: { "aria-hidden": "true" } });
    this.element = make("div", { className: "plot" }, make("dt", { textContent: quantity.label }), this.#value, make("dd", { className: "course" }, this.#canvas));
  }

  draw(): void {
    const { series, quantity } = this;
    const known = series.length > 0 && Number.isFinite(series.last);
    setText(this.#value, known ? `${shownNumber(series.last, quantity.digits)} ${quantity.unit}` : "–");
    const canvas = this.#canvas;
    const width = Math.round(canvas.clientWidth * devicePixelRatio);
    const height = Math.round(canvas.clientHeight * devicePixelRatio);
    const context = canvas.getContext("2d");
    if (context === null || width === 0) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    context.clearRect(0, 0, width, height);
    const [low, high] = series.range(this.#range);
    const span = high > low ? high - low : 1;
    context.strokeStyle = getComputedStyle(canvas).color;
    context.lineWidth = devicePixelRatio;
    context.beginPath();
    let drawing = false;
    for (let at = 0; at < series.length; at += 1) {
      const value = series.at(at);
      if (!Number.isFinite(value)) {
        drawing = false;
        continue;
      }
      const x = courseX(at, series.length, width);
      const y = height - 2 - ((value - low) / span) * (height - 4);
      if (drawing) context.lineTo(x, y);
      else context.moveTo(x, y);
      drawing = true;
    }
    context.stroke();
  }
}
