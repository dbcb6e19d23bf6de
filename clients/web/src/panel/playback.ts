/** Running the simulation: play, pause, step, reset, which one, how fast. */

import type { Session } from "../contracts.ts";
import { icon, iconButton, make } from "./elements.ts";
import { Progress } from "./words.ts";

/** The simulation is taken to stand still when nothing has changed for so long, ms. */
const PATIENCE_MS = 1200;
/** After a button was pressed, what it should come to is shown for so long, ms. */
const TRUST_MS = 1500;

/** Seconds between frames, and what they come to. */
const SPEEDS: readonly (readonly [seconds: number, label: string])[] = [
  [0, "As fast as it goes"],
  [1 / 60, "60 frames/s"],
  [1 / 30, "30 frames/s"],
  [1 / 15, "15 frames/s"],
  [0.2, "5 frames/s"],
  [1, "1 frame/s"],
];

export class Playback {
  /** Buttons for the bar at the bottom. */
  readonly buttons: readonly HTMLButtonElement[];
  /** Fields for the panel. */
  readonly fields: readonly HTMLElement[];
  readonly #play: HTMLButtonElement;
  readonly #simulations = make("select", { id: "simulation", onchange: () => this.#load() });
  readonly #speed = make("select", { id: "speed", onchange: () => this.#setSpeed() });
  readonly #progress = new Progress(PATIENCE_MS);
  #runs = false;
  #meant: { runs: boolean; until: number } | null = null;
  #names: readonly string[] = [];
  #asked = "";

  constructor(
    private readonly session: Session,
    private readonly say: (text: string) => void,
  ) {
    this.#play = iconButton("pause", "Pause", () => this.toggle(), "Space");
    this.buttons = [
      this.#play,
      iconButton("step", "One step", () => this.step(), "."),
      iconButton("reset", "Reset the simulation", () => this.reset(), "r"),
    ];
    this.fields = [
      make("div", { className: "field" }, make("label", { htmlFor: "simulation", textContent: "Simulation" }), this.#simulations),
      make("div", { className: "field" }, make("label", { htmlFor: "speed", textContent: "Speed" }), this.#speed),
    ];
    this.#speed.append(...SPEEDS.map(([seconds, label]) => make("option", { value: String(seconds), textContent: label })));
  }

  toggle(): void {
    this.#mean(!this.#runs);
    this.#run(this.#runs ? "playback/play" : "playback/pause", this.#runs ? "Playing" : "Paused");
  }

  step(): void {
    this.#mean(false);
    this.#run("playback/step", "One step");
  }

  reset(): void {
    this.#run("playback/reset", "Reset");
  }

  /** What is shown is what is so. To be called a few times a second. */
  look(now: number): void {
    const runs = this.#progress.runs(this.session.frame, now);
    if (this.#meant !== null && (runs === this.#meant.runs || now > this.#meant.until)) this.#meant = null;
    this.#show(this.#meant?.runs ?? runs);
    const current = this.session.frame?.values["system.simulation.name"];
    if (this.session.status.kind === "open" && typeof current === "string" && current !== this.#asked) {
      this.#asked = current;
      void this.#list(current);
    }
  }

  /** After a new connection, everything is asked for anew. */
  forget(): void {
    this.#asked = "";
  }

  #show(runs: boolean): void {
    if (runs === this.#runs) return;
    this.#runs = runs;
    const label = runs ? "Pause" : "Play";
    this.#play.setAttribute("aria-label", label);
    this.#play.title = `${label} (Space)`;
    this.#play.replaceChildren(icon(runs ? "pause" : "play"));
  }

  #mean(runs: boolean): void {
    this.#meant = { runs, until: performance.now() + TRUST_MS };
    this.#show(runs);
  }

  #run(command: string, done: string, args: Record<string, unknown> = {}): void {
    this.session.run(command, args).then(
      () => this.say(done),
      (error: Error) => {
        this.#meant = null;
        this.say(error.message);
      },
    );
  }

  #load(): void {
    const index = this.#simulations.selectedIndex;
    this.#run("playback/load", `Loading ${this.#names[index] ?? ""}`, { index });
  }

  #setSpeed(): void {
    this.#run("trajectory/set-dynamics-interval", "Speed changed", { interval: Number(this.#speed.value) });
  }

  async #list(current: string): Promise<void> {
    try {
      const { simulations } = await this.session.run("playback/list");
      const names = Array.isArray(simulations) ? simulations.map(String) : [];
      if (names.join("\n") !== this.#names.join("\n")) {
        this.#names = names;
        this.#simulations.replaceChildren(...names.map((name, at) => make("option", { value: String(at), textContent: name })));
      }
      const loaded = this.session.state.get("simulation.index");
      this.#simulations.selectedIndex = typeof loaded === "number" ? loaded : names.indexOf(current);
      const { interval } = await this.session.run("trajectory/get-dynamics-interval");
      if (typeof interval === "number") this.#showSpeed(interval);
    } catch {
      // Whoever may not know these goes without.
    }
  }

  #showSpeed(interval: number): void {
    const near = SPEEDS.find(([seconds]) => Math.abs(seconds - interval) < 1e-3);
    if (near === undefined) {
      const label = `${Number((1 / interval).toPrecision(2))} frames/s`;
      this.#speed.append(make("option", { value: String(interval), textContent: label }));
    }
    this.#speed.value = String(near?.[0] ?? interval);
  }
}

/** A line for how the connection is; empty while it is well. */
export function connectionWords(session: Session): string {
  const { status } = session;
  if (status.kind === "lost") return `${status.reason} Trying again…`;
  if (status.kind === "connecting" && status.attempt > 0) return "Trying to reach the server again…";
  return "";
}
