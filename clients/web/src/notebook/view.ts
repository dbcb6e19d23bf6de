/** One place where a widget is shown: the picture, compact controls, and what they and the notebook tell each other. */

import type { SceneView, Touch } from "../contracts.ts";
import { Controls } from "../panel/controls.ts";
import { iconButton, make, setText } from "../panel/elements.ts";
import { actionOf } from "../panel/keys.ts";
import { connectionWords, Playback } from "../panel/playback.ts";
import { CHOICES, DEFAULTS, pullSettings, type Settings } from "../panel/settings.ts";
import { frameWords, particleWords } from "../panel/words.ts";
import { createSceneView } from "../scene/index.ts";
import { newPlayerId } from "../session/identity.ts";
import { SocketSession } from "../session/socket.ts";
import { createTouch } from "../touch/index.ts";
import { targetOf } from "../touch/targets.ts";
import { CameraNews, placeOf } from "./camera-news.ts";
import { chosen, particlesOf } from "./choosing.ts";
import { CommSocket } from "./comm-socket.ts";
import type { Model, Traits } from "./model.ts";
import styles from "./notebook.css?inline";
import { surroundedByDark } from "./theme.ts";

const LOOK_EVERY_MS = 200;
const SAID_FOR_MS = 4000;
/** A press that is longer, or goes further, is a pull and no click. */
const CLICK_MS = 400;
const CLICK_PX = 4;
/** How far beside an atom still selects it, px. */
const SLACK_PX = 6;
const KEYS = ["representation", "colors", "target", "law", "strength", "smoothing", "box"] as const;

export class NotebookView {
  readonly #host = make("div", { className: "narupa-view", attributes_: { "data-lm-suppress-shortcuts": "true" } });
  readonly #root: ShadowRoot;
  readonly #session: SocketSession;
  readonly #scene: SceneView | null;
  readonly #touch: Touch | null;
  readonly #controls: Controls;
  readonly #playback: Playback;
  readonly #camera = new CameraNews();
  readonly #stage = make("div", { className: "stage" });
  readonly #trouble = make("div", { className: "trouble", attributes_: { role: "alert" } });
  readonly #said = make("div", { className: "said", attributes_: { role: "status", "aria-live": "polite" } });
  readonly #status = make("p", { className: "facts", textContent: "Waiting for the simulation…" });
  readonly #hovered = make("p", { className: "hovered" });
  readonly #selected = make("p", { className: "selected" });
  readonly #settings: HTMLElement;
  readonly #settingsButton: HTMLButtonElement;
  readonly #leaving: (() => void)[] = [];
  #placed = false;
  #pressed: { readonly x: number; readonly y: number; readonly at: number } | null = null;
  #saidTimer: ReturnType<typeof setTimeout> | null = null;
  #wasOpen = false;

  constructor(
    private readonly model: Model,
    element: HTMLElement,
  ) {
    this.#session = new SocketSession(newPlayerId(), {
      place: location,
      open: () => new CommSocket(model, newPlayerId(), around),
      ...around,
      random: Math.random,
    });
    this.#controls = new Controls(this.#settingsAsTold(), (settings) => this.#choose(settings));
    this.#playback = new Playback(this.#session, (text) => this.#say(text));
    const nothing = make("button", { type: "button", textContent: "Select nothing", onclick: () => this.#select([]) });
    this.#settings = make("aside", { className: "side", attributes_: { "aria-label": "Settings" } }, ...KEYS.map((key) => this.#controls.field(key)), nothing);
    this.#settingsButton = iconButton("menu", "Settings", () => this.#showSettings(this.#settings.hidden === true), "p");
    this.#showSettings(false);
    const fit = iconButton("fit", "Look at everything", () => this.#scene?.resetCamera(), "c");
    const gap = make("span", { className: "gap" });
    const bar = make("div", { className: "bar", attributes_: { role: "toolbar", "aria-label": "Simulation" } }, ...this.#playback.buttons, gap, fit, this.#settingsButton);
    const line = make("div", { className: "line" }, this.#status, this.#selected, this.#hovered);
    const view = make("section", { className: "view", attributes_: { "aria-label": "Narupa session" } }, this.#stage, this.#trouble, this.#said, make("footer", { className: "foot" }, line, bar), this.#settings);

    this.#root = this.#host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(styles);
    this.#root.adoptedStyleSheets = [sheet];
    this.#root.append(view);
    this.#setHeight();
    element.append(this.#host);
    [this.#scene, this.#touch] = this.#drawn();
    this.#choose(this.#controls.settings);
    this.#scene?.setSelected(particlesOf(model.get("selection")));
    this.#listen();
    this.#session.connect({ ...this.model.get("_user"), code: "" });
    this.#look();
  }

  dispose(): void {
    for (const leave of this.#leaving) leave();
    if (this.#saidTimer !== null) clearTimeout(this.#saidTimer);
    this.#touch?.dispose();
    this.#scene?.dispose();
    this.#session.close();
    this.#host.remove();
  }

  #drawn(): [SceneView, Touch] | [null, null] {
    try {
      const scene = createSceneView(this.#stage, this.#session);
      scene.canvas.setAttribute("aria-label", "The simulation. Drag to turn it, drag an atom to pull it, click it to select it; arrow keys pull what is highlighted.");
      return [scene, createTouch(this.#session, scene, { onRefused: (sentence) => this.#say(sentence) })];
    } catch (error) {
      console.warn(error); // the stage says so
      return [null, null];
    }
  }

  // What happens, and what is shown of it.

  #listen(): void {
    const { model } = this;
    const timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
    const changes: [keyof Traits, () => void][] = [
      ["representation", () => this.#heed()],
      ["colors", () => this.#heed()],
      ["selection", () => this.#showSelected()],
      ["camera", () => this.#moveCamera()],
      ["height", () => this.#setHeight()],
    ];
    for (const [key, listener] of changes) {
      model.on(`change:${key}`, listener);
      this.#leaving.push(() => model.off(`change:${key}`, listener));
    }
    this.#leaving.push(() => clearInterval(timer), this.#session.on("status", () => this.#showStatus()));
    if (this.#touch !== null) this.#leaving.push(this.#touch.on("hover", () => this.#showHovered()));
    this.#host.addEventListener("keydown", (event) => this.#press(event));
    this.#stage.addEventListener("pointerdown", (event) => this.#down(event), { capture: true });
    this.#stage.addEventListener("pointerup", (event) => this.#up(event), { capture: true });
    // A notebook is scrolled by the same wheel: it is the view's once the view has the focus.
    this.#stage.addEventListener("wheel", (event) => this.#root.activeElement !== this.#scene?.canvas && event.stopPropagation(), { capture: true });
  }

  #look(): void {
    if (document.hidden) return;
    const { frame } = this.#session;
    this.#playback.look(performance.now());
    if (frame !== null) setText(this.#status, frameWords(frame));
    this.#showTrouble();
    this.#showTheme();
    this.#lookAtCamera();
  }

  #showStatus(): void {
    const open = this.#session.status.kind === "open";
    if (open && !this.#wasOpen) this.#playback.forget();
    this.#wasOpen = open;
    this.#showTrouble();
  }

  #showTrouble(): void {
    const { status, frame } = this.#session;
    const exception = frame?.values["system.simulation.exception"];
    const ended = status.kind === "ended" ? status.reason : "";
    setText(this.#trouble, ended || connectionWords(this.#session) || (typeof exception === "string" ? exception.slice(0, 500) : ""));
  }

  #showHovered(): void {
    const [frame, particle] = [this.#session.frame, this.#touch?.hovered ?? null];
    setText(this.#hovered, frame === null || particle === null ? "" : particleWords(frame, particle));
  }

  #showTheme(): void {
    const dark = surroundedByDark(this.#host, () => matchMedia("(prefers-color-scheme: dark)").matches);
    const theme = dark ? "dark" : "light";
    if (this.#host.dataset["theme"] === theme) return;
    this.#host.dataset["theme"] = theme;
    this.#scene?.setTheme(theme);
  }

  #say(text: string): void {
    setText(this.#said, text);
    if (this.#saidTimer !== null) clearTimeout(this.#saidTimer);
    this.#saidTimer = setTimeout(() => setText(this.#said, ""), SAID_FOR_MS);
  }

  #setHeight(): void {
    this.#host.style.height = `${this.model.get("height")}px`;
  }

  #showSettings(shown: boolean): void {
    this.#settings.hidden = !shown;
    this.#settingsButton.setAttribute("aria-expanded", String(shown));
  }

  // What is chosen here, and there.

  #settingsAsTold(): Settings {
    const told = { representation: this.model.get("representation"), colors: this.model.get("colors") };
    return { ...DEFAULTS, ...told, strength: { ...DEFAULTS.strength } };
  }

  #heed(): void {
    const { settings } = this.#controls;
    const { representation, colors } = this.#settingsAsTold();
    if (settings.representation === representation && settings.colors === colors) return;
    Object.assign(settings, { representation, colors });
    this.#controls.show();
    this.#choose(settings);
  }

  #choose(settings: Settings): void {
    const { representation, colors, smoothing, box } = settings;
    this.#scene?.setRepresentation(representation, colors);
    this.#scene?.setSmoothing(smoothing);
    this.#scene?.setShowBox(box);
    if (this.#touch !== null) this.#touch.settings = pullSettings(settings);
    this.#tell({ representation, colors });
  }

  #select(particles: number[]): void {
    this.#tell({ selection: particles });
    this.#showSelected();
  }

  #showSelected(): void {
    const particles = particlesOf(this.model.get("selection"));
    this.#scene?.setSelected(particles);
    setText(this.#selected, particles.length === 0 ? "" : `${particles.length.toLocaleString("en")} selected`);
  }

  #moveCamera(): void {
    const place = placeOf(this.model.get("camera"));
    if (place === null || this.#scene === null || !this.#placed || this.#camera.knows(place)) return;
    this.#scene.moveCamera(place);
    this.#camera.know(this.#scene.cameraPlace());
  }

  #lookAtCamera(): void {
    const scene = this.#scene;
    if (scene === null || scene.stats().particles === 0) return;
    if (!this.#placed) {
      // Not earlier: the first particles that are seen bring the camera to where all of them are.
      this.#placed = true;
      this.#moveCamera();
    }
    const place = this.#camera.look(scene.cameraPlace());
    if (place !== null) this.#tell({ camera: place });
  }

  #tell(traits: Partial<Traits>): void {
    let changed = false;
    for (const [key, value] of Object.entries(traits) as [keyof Traits, never][]) {
      if (this.model.get(key) === value) continue;
      this.model.set(key, value);
      changed = true;
    }
    if (changed) this.model.save_changes();
  }

  // What is done with mouse and keys.

  #down(event: PointerEvent): void {
    this.#pressed = event.button === 0 && event.isPrimary ? { x: event.clientX, y: event.clientY, at: event.timeStamp } : null;
  }

  #up(event: PointerEvent): void {
    const [pressed, scene, { frame, state }] = [this.#pressed, this.#scene, this.#session];
    this.#pressed = null;
    if (pressed === null || scene === null || frame === null || !event.isPrimary) return;
    const { clientX: x, clientY: y, timeStamp } = event;
    if (timeStamp - pressed.at > CLICK_MS || Math.hypot(x - pressed.x, y - pressed.y) > CLICK_PX) return;
    const slack = SLACK_PX * scene.nmPerPixel(scene.cameraPlace().target);
    const hit = scene.pick(scene.rayAt(x, y), slack);
    if (hit === null) return;
    const { particles } = targetOf(hit.particle, frame, state, this.#controls.settings.target);
    const more = event.shiftKey || event.ctrlKey || event.metaKey;
    if (particles.length > 0) this.#select(chosen(particlesOf(this.model.get("selection")), particles, more));
  }

  #press(event: KeyboardEvent): void {
    event.stopPropagation(); // the notebook has uses of its own for most keys
    const action = actionOf(event, this.#root.activeElement?.tagName ?? "");
    if (action === null || action.kind === "help") return;
    event.preventDefault();
    switch (action.kind) {
      case "play":
        return this.#playback.toggle();
      case "step":
        return this.#playback.step();
      case "reset":
        return this.#playback.reset();
      case "release":
        return this.#touch?.releaseAll();
      case "camera":
        return this.#scene?.resetCamera();
      case "panel":
        return this.#showSettings(this.#settings.hidden === true);
      case "nudge":
        return this.#touch?.nudge(action.dx, action.dy);
      case "representation": {
        const [value, label] = CHOICES.representation.options[action.index]!;
        this.#controls.choose("representation", value);
        return this.#say(label);
      }
    }
  }
}

const around = {
  now: () => performance.now(),
  onNextFrame: (run: () => void) => void requestAnimationFrame(run),
};
