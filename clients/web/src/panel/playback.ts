/** Running the simulation: play, pause, step, reset, which one, how fast. */

import type { Session } from "../contracts.ts";
import { icon, iconButton, make, setText } from "./elements.ts";
import { Running } from "./running.ts";

/** Seconds between frames, and what they come to. */
const SPEEDS: readonly (readonly [seconds: number, label: string])[] = [
  [0, "As fast as it goes"],
  [1 / 60, "60 frames/s"],
  [1 / 30, "30 frames/s"],
  [1 / 15, "15 frames/s"],
  [0.2, "5 frames/s"],
  [1, "1 frame/s"],
];
const NOT_YOURS = "Hosts run the simulation. A host can make you one.";
const NOT_ALLOWED = "Your role in this session does not allow this. A host can change it.";

export class Playback {
  /** Buttons for the bar at the bottom. */
  readonly buttons: readonly HTMLButtonElement[];
  /** Fields for the panel. */
  readonly fields: readonly HTMLElement[];
  readonly #play: HTMLButtonElement;
  readonly #simulations = make("select", { id: "simulation", onchange: () => this.#load() });
  readonly #speed = make("select", { id: "speed", onchange: () => this.#setSpeed() });
  readonly #why = make("p", { id: "playback-why", className: "hint" });
  readonly #running = new Running();
  #runs = true;
  #names: readonly string[] = [];
  #asked = "";
  #allowed = true;
  #asking = false;

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
    for (const button of this.buttons) button.setAttribute("aria-describedby", this.#why.id);
    this.fields = [
      make("div", { className: "field" }, make("label", { htmlFor: "simulation", textContent: "Simulation" }), this.#simulations),
      make("div", { className: "field" }, make("label", { htmlFor: "speed", textContent: "Speed" }), this.#speed),
      this.#why,
    ];
    this.#speed.append(...SPEEDS.map(([seconds, label]) => make("option", { value: String(seconds), textContent: label })));
  }

  toggle(): void {
    const runs = !this.#runs;
    this.#run(runs ? "playback/play" : "playback/pause", runs ? "Playing" : "Paused", {}, runs);
  }

  step(): void {
    this.#run("playback/step", "One step", {}, false);
  }

  reset(): void {
    this.#run("playback/reset", "Reset");
  }

  /** Whether we may do any of this: the buttons say so, and that of those who may not why. */
  allow(allowed: boolean): void {
    if (allowed === this.#allowed) return;
    this.#allowed = allowed;
    for (const button of this.buttons) {
      if (allowed) button.removeAttribute("aria-disabled");
      else button.setAttribute("aria-disabled", "true");
      showTitle(button);
    }
    this.#simulations.disabled = this.#speed.disabled = !allowed;
    setText(this.#why, allowed ? "" : NOT_YOURS);
  }

  /** What is shown is what is so. To be called a few times a second. */
  look(now: number): void {
    const runs = this.#running.look(this.session.frame, now);
    if (runs !== null) this.#show(runs);
    if (this.session.status.kind !== "open") return;
    if (!this.#asking && this.#running.asks(now)) void this.#ask();
    const current = this.session.frame?.values["system.simulation.name"];
    if (typeof current === "string" && current !== this.#asked) {
      this.#asked = current;
      void this.#list(current);
    }
  }

  /** After a new connection, everything is asked for anew. */
  forget(): void {
    this.#asked = "";
    this.#running.forget();
  }

  #show(runs: boolean): void {
    if (runs === this.#runs) return;
    this.#runs = runs;
    const label = runs ? "Pause" : "Play";
    this.#play.setAttribute("aria-label", label);
    showTitle(this.#play);
    this.#play.replaceChildren(icon(runs ? "pause" : "play"));
  }

  async #ask(): Promise<void> {
    this.#asking = true;
    try {
      const { playing } = await this.session.run("playback/get-state");
      if (typeof playing === "boolean") this.#running.told(playing);
    } catch (error) {
      if (/unknown/i.test((error as Error).message)) this.#running.unanswered();
    } finally {
      this.#asking = false;
    }
  }

  /** `runs` is what it should come to; undefined where it stays as it is. */
  #run(command: string, done: string, args: Record<string, unknown> = {}, runs?: boolean): void {
    if (!this.#allowed) {
      this.say(NOT_ALLOWED);
      return;
    }
    if (runs !== undefined) {
      this.#running.mean(runs, performance.now());
      this.#show(runs);
    }
    this.session.run(command, args).then(
      () => {
        if (runs !== undefined) this.#running.told(runs);
        this.say(done);
      },
      (error: Error) => {
        this.#running.failed();
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

/** A button of the bar says what it does, and with which key; or why it does nothing. */
function showTitle(button: HTMLButtonElement): void {
  const label = button.getAttribute("aria-label") ?? "";
  const allowed = button.getAttribute("aria-disabled") !== "true";
  button.title = allowed ? `${label} (${button.getAttribute("aria-keyshortcuts")})` : `${label}: ${NOT_YOURS}`;
}
