/** One place where a widget is shown: the picture, compact controls, and what they and the notebook tell each other. */

import type { MarkControl, SceneView, Touch } from "../contracts.ts";
import { Controls } from "../panel/controls.ts";
import { iconButton, make, setText } from "../panel/elements.ts";
import { actionOf } from "../panel/keys.ts";
import { Playback } from "../panel/playback.ts";
import { markedWords } from "../panel/selection-list.ts";
import { CHOICES, DEFAULTS, pullSettings, type Settings } from "../panel/settings.ts";
import { Trouble } from "../panel/trouble.ts";
import { frameWords, particleWords } from "../panel/words.ts";
import { createSceneView } from "../scene/index.ts";
import { newPlayerId } from "../session/identity.ts";
import { SocketSession } from "../session/socket.ts";
import { createTouch } from "../touch/index.ts";
import { CameraNews, placeOf } from "./camera-news.ts";
import { CommSocket } from "./comm-socket.ts";
import { type Model, particlesOf, type Traits } from "./model.ts";
import styles from "./notebook.css?inline";
import { surroundedByDark } from "./theme.ts";

const LOOK_EVERY_MS = 200;
const SAID_FOR_MS = 4000;
const FIELDS = ["representation", "colors", "target", "law", "strength", "unit", "smoothing", "box"] as const;

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
  readonly #trouble: Trouble;
  readonly #said = make("div", { className: "said", attributes_: { role: "status", "aria-live": "polite" } });
  readonly #status = make("p", { className: "facts", textContent: "Waiting for the simulation…" });
  readonly #hovered = make("p", { className: "hovered" });
  readonly #marked = make("p", { className: "marked" });
  readonly #markButton: HTMLButtonElement;
  readonly #settings: HTMLElement;
  readonly #settingsButton: HTMLButtonElement;
  readonly #leaving: (() => void)[] = [];
  #placed = false;
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
    this.#trouble = new Trouble(this.#session, () => this.#playback.reset());
    this.#settings = make("aside", { className: "side", attributes_: { "aria-label": "Settings" } }, ...FIELDS.map((key) => this.#controls.field(key)));
    this.#settingsButton = iconButton("menu", "Settings", () => this.#showSettings(this.#settings.hidden === true), "p");
    this.#showSettings(false);
    const fit = iconButton("fit", "Look at everything", () => this.#scene?.resetCamera(), "c");
    this.#markButton = iconButton("mark", "Mark atoms", () => this.#toggleMarking(), "e");
    const gap = make("span", { className: "gap" });
    const bar = make("div", { className: "bar", attributes_: { role: "toolbar", "aria-label": "Simulation" } }, ...this.#playback.buttons, gap, this.#markButton, fit, this.#settingsButton);
    const line = make("div", { className: "line" }, this.#status, this.#marked, this.#hovered);
    const view = make("section", { className: "view", attributes_: { "aria-label": "Narupa session" } }, this.#stage, this.#trouble.element, this.#said, make("footer", { className: "foot" }, line, bar), this.#settings);

    this.#root = this.#host.attachShadow({ mode: "open" });
    const sheet = new CSSStyleSheet();
    sheet.replaceSync(styles);
    this.#root.adoptedStyleSheets = [sheet];
    this.#root.append(view);
    this.#setHeight();
    element.append(this.#host);
    [this.#scene, this.#touch] = this.#drawn();
    this.#choose(this.#controls.settings);
    this.#heedSelection();
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
      scene.canvas.setAttribute("aria-label", "The simulation. Drag to turn it, drag an atom to pull it, Shift and a click marks it; arrow keys pull what is highlighted, Enter marks it.");
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
      ["selection", () => this.#heedSelection()],
      ["camera", () => this.#moveCamera()],
      ["height", () => this.#setHeight()],
    ];
    for (const [key, listener] of changes) {
      model.on(`change:${key}`, listener);
      this.#leaving.push(() => model.off(`change:${key}`, listener));
    }
    this.#leaving.push(() => clearInterval(timer), this.#session.on("status", () => this.#showStatus()));
    if (this.#touch !== null) {
      const { marks } = this.#touch;
      this.#leaving.push(this.#touch.on("hover", () => this.#showHovered()), marks.on(() => this.#tellMarks(marks)));
    }
    // A page that is left says so, or its avatar would stand around until the kernel has missed it.
    const leave = () => this.#session.close();
    addEventListener("pagehide", leave);
    this.#leaving.push(() => removeEventListener("pagehide", leave));
    this.#host.addEventListener("keydown", (event) => this.#press(event));
    // A notebook is scrolled by the same wheel: it is the view's once the view has the focus.
    this.#stage.addEventListener("wheel", (event) => this.#root.activeElement !== this.#scene?.canvas && event.stopPropagation(), { capture: true });
  }

  #look(): void {
    if (document.hidden) return;
    const { frame } = this.#session;
    this.#playback.look(performance.now());
    if (frame !== null) setText(this.#status, frameWords(frame));
    this.#trouble.look(true);
    this.#showTheme();
    this.#lookAtCamera();
  }

  #showStatus(): void {
    const open = this.#session.status.kind === "open";
    if (open && !this.#wasOpen) this.#playback.forget();
    this.#wasOpen = open;
    this.#trouble.look(true);
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
    if (this.#touch !== null) {
      this.#touch.settings = pullSettings(settings);
      this.#touch.marks.unit = settings.unit;
    }
    this.#tell({ representation, colors });
  }

  #heedSelection(): void {
    this.#touch?.marks.set(particlesOf(this.model.get("selection")));
    this.#showMarks();
  }

  #tellMarks({ particles }: MarkControl): void {
    const told = particlesOf(this.model.get("selection"));
    if (told.length !== particles.length || told.some((particle, at) => particle !== particles[at])) this.#tell({ selection: [...particles] });
    this.#showMarks();
  }

  #showMarks(): void {
    const marks = this.#touch?.marks;
    if (marks === undefined) return;
    this.#markButton.setAttribute("aria-pressed", String(marks.active));
    setText(this.#marked, marks.particles.length > 0 ? markedWords(marks.particles.length) : marks.active ? "Click atoms to mark them" : "");
  }

  #toggleMarking(): void {
    const marks = this.#touch?.marks;
    if (marks !== undefined) marks.active = !marks.active;
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
        this.#touch?.releaseAll();
        return this.#touch?.marks.set([]);
      case "camera":
        return this.#scene?.resetCamera();
      case "panel":
        return this.#showSettings(this.#settings.hidden === true);
      case "marking":
        return this.#toggleMarking();
      case "mark":
        return this.#touch?.marks.here();
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
