/** Everything that is HTML, over the picture of the simulation. */

import type { Panel, PullChoice, SceneView, Session, Touch, XrMode } from "../contracts.ts";
import { inviteUrl } from "../session/address.ts";
import { Controls } from "./controls.ts";
import { iconButton, make, setText } from "./elements.ts";
import { InviteDialog } from "./invite.ts";
import { actionOf, SHORTCUTS } from "./keys.ts";
import { peopleOf } from "./people.ts";
import { connectionWords, Playback } from "./playback.ts";
import { Plot, QUANTITIES } from "./plots.ts";
import { CHOICES, pullSettings, readSettings, type Settings } from "./settings.ts";
import { frameWords, particleWords } from "./words.ts";

const LOOK_EVERY_MS = 200;
const SAID_FOR_MS = 4000;
const KEPT = "narupa.settings";
/** The panel is open at first where it leaves room for the picture. */
const ROOMY = "(min-width: 52rem)";

export interface Surroundings {
  readonly root: HTMLElement;
  readonly session: Session;
  readonly code: () => string;
  readonly onLeave: () => void;
}

export class SessionPanel implements Panel {
  readonly element: HTMLElement;
  /** Where the picture goes. */
  readonly stage = make("div", { className: "stage" });
  readonly #session: Session;
  readonly #around: Surroundings;
  readonly #controls: Controls;
  readonly #playback: Playback;
  readonly #plots = Object.fromEntries(Object.entries(QUANTITIES).map(([key, quantity]) => [key, new Plot(quantity)])) as Record<keyof typeof QUANTITIES, Plot>;
  readonly #invite = new InviteDialog();
  readonly #help = helpDialog();
  readonly #said = make("div", { className: "said", attributes_: { role: "status", "aria-live": "polite" } });
  readonly #trouble = make("div", { className: "trouble", attributes_: { role: "alert" } });
  readonly #status = make("p", { className: "facts", textContent: "Waiting for the simulation…" });
  readonly #hovered = make("p", { className: "hovered" });
  readonly #people = make("ul", { className: "people" });
  readonly #peopleTitle = make("summary", { textContent: "People" });
  readonly #role = make("p", { className: "hint" });
  readonly #xr = make("div", { className: "row" });
  readonly #xrNote = make("p", { className: "hint" });
  readonly #gap = make("span", { className: "gap" });
  readonly #side: HTMLElement;
  readonly #sideButton: HTMLButtonElement;
  readonly #leaving: (() => void)[] = [];
  #scene: SceneView | null = null;
  #touch: Touch | null = null;
  #plotted = -1;
  #topology = -1;
  #saidTimer: ReturnType<typeof setTimeout> | null = null;
  #stateChanged = true;
  #wasOpen = false;

  constructor(around: Surroundings) {
    this.#around = around;
    this.#session = around.session;
    this.#controls = new Controls(readSettings(localStorage.getItem(KEPT)), (settings) => this.#apply(settings));
    this.#playback = new Playback(around.session, (text) => this.announce(text));
    const controls = this.#controls;
    this.#side = make(
      "aside",
      { id: "side", className: "side", attributes_: { "aria-label": "Session and settings" } },
      make("details", { open: true }, this.#peopleTitle, this.#people, this.#role),
      section("Simulation", true, ...this.#playback.fields),
      section("Values", true, make("dl", { className: "plots" }, ...Object.values(this.#plots).map((plot) => plot.element))),
      section("Pull", true, controls.field("target"), controls.field("law"), controls.field("strength"), controls.field("resetVelocities"), this.#button("Let go of everything", () => this.#touch?.releaseAll())),
      section("Look", true, controls.field("representation"), controls.field("colors"), controls.field("smoothing"), controls.field("box"), this.#button("Look at everything", () => this.#scene?.resetCamera())),
      section("Headset", false, this.#xr, this.#xrNote, this.#button("Place everybody in a circle", () => this.#run("multiuser/radially-orient-origins", "Everybody has a place"))),
      section("Page", false, controls.field("theme"), this.#button("Leave the session", () => around.onLeave())),
    );
    this.#sideButton = iconButton("menu", "Panel", () => this.#showSide(this.#side.hidden === true), "p");
    this.#sideButton.setAttribute("aria-controls", "side");
    const bar = make(
      "div",
      { className: "bar", attributes_: { role: "toolbar", "aria-label": "Simulation" } },
      ...this.#playback.buttons,
      this.#gap,
      iconButton("invite", "Invite", () => this.#showInvite()),
      iconButton("help", "Keys and gestures", () => this.#help.showModal(), "?"),
      this.#sideButton,
    );
    const footer = make("footer", { className: "foot" }, make("div", { className: "line" }, this.#status, this.#hovered), bar);
    this.element = make("main", { className: "session" }, make("h1", { className: "unseen", textContent: "Narupa session" }), this.stage, this.#trouble, this.#said, footer, this.#side, this.#invite.element, this.#help);
    around.root.append(this.element);
    this.#showSide(matchMedia(ROOMY).matches);
    this.#apply(controls.settings);
    this.#listen();
  }

  /** What is drawn and what is grabbed can be set from here now. */
  attach(scene: SceneView, touch: Touch): void {
    this.#scene = scene;
    this.#touch = touch;
    scene.canvas.tabIndex = 0;
    scene.canvas.setAttribute("role", "application");
    scene.canvas.setAttribute("aria-label", "The simulation. Drag to turn it, drag an atom to pull it; arrow keys pull what is highlighted.");
    this.#leaving.push(touch.on("hover", () => this.#showHovered()));
    this.#apply(this.#controls.settings);
    void this.#offerXr(touch);
  }

  /** Pulls are made otherwise, as was chosen in a headset. */
  choosePull(choice: PullChoice): void {
    if ("law" in choice) this.#controls.choose("law", choice.law);
    else this.#controls.strengthen(choice.stronger);
  }

  announce(text: string): void {
    setText(this.#said, text);
    if (this.#saidTimer !== null) clearTimeout(this.#saidTimer);
    this.#saidTimer = setTimeout(() => setText(this.#said, ""), SAID_FOR_MS);
  }

  dispose(): void {
    for (const leave of this.#leaving) leave();
    if (this.#saidTimer !== null) clearTimeout(this.#saidTimer);
    this.element.remove();
  }

  // What happens, and what is shown of it.

  #listen(): void {
    const session = this.#session;
    const timer = setInterval(() => this.#look(), LOOK_EVERY_MS);
    const onKey = (event: KeyboardEvent) => this.#press(event);
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    const onScheme = () => this.#applyTheme(this.#controls.settings);
    addEventListener("keydown", onKey);
    scheme.addEventListener("change", onScheme);
    this.#leaving.push(
      session.on("state", () => (this.#stateChanged = true)),
      session.on("frame", () => this.#note()),
      session.on("status", () => this.#showStatus()),
      () => clearInterval(timer),
      () => removeEventListener("keydown", onKey),
      () => scheme.removeEventListener("change", onScheme),
    );
    this.#showStatus();
  }

  /** The values of each frame are kept for the plots. */
  #note(): void {
    const frame = this.#session.frame;
    if (frame === null || frame.serial === this.#plotted) return;
    this.#plotted = frame.serial;
    for (const { quantity, series } of Object.values(this.#plots)) {
      if (quantity.key === null) continue;
      if (frame.index === 0) series.clear();
      const value = frame.values[quantity.key];
      series.push(typeof value === "number" ? value : NaN);
    }
  }

  #look(): void {
    if (document.hidden) return;
    const frame = this.#session.frame;
    this.#playback.look(performance.now());
    if (this.#scene !== null) this.#plots.fps.series.push(this.#scene.stats().fps);
    if (!this.#side.hidden) for (const plot of Object.values(this.#plots)) plot.draw();
    if (this.#stateChanged) {
      this.#stateChanged = false;
      this.#showPeople();
    }
    if (frame !== null) {
      setText(this.#status, frameWords(frame));
      if (frame.topologySerial !== this.#topology) {
        this.#topology = frame.topologySerial;
        this.#showHovered();
      }
    }
    this.#showTrouble();
  }

  #showStatus(): void {
    const open = this.#session.status.kind === "open";
    if (open && !this.#wasOpen) this.#playback.forget();
    this.#wasOpen = open;
    this.#stateChanged = true;
    this.#showTrouble();
    setText(this.#role, this.#session.watching ? "You are watching. To take part, ask a host for another role." : "");
  }

  #showTrouble(): void {
    const exception = this.#session.frame?.values["system.simulation.exception"];
    setText(this.#trouble, connectionWords(this.#session) || (typeof exception === "string" ? exception.slice(0, 500) : ""));
  }

  #showHovered(): void {
    const [frame, particle] = [this.#session.frame, this.#touch?.hovered ?? null];
    setText(this.#hovered, frame === null || particle === null ? "" : particleWords(frame, particle));
  }

  #showPeople(): void {
    const people = peopleOf(this.#session.state, this.#session.playerId);
    setText(this.#peopleTitle, people.length === 0 ? "People" : `People (${people.length})`);
    while (this.#people.children.length > people.length) this.#people.lastElementChild!.remove();
    people.forEach((person, at) => {
      let item = this.#people.children[at];
      if (item === undefined) {
        item = make("li", {}, make("span", { className: "swatch" }), make("span"));
        this.#people.append(item);
      }
      const [swatch, text] = [item.children[0] as HTMLElement, item.children[1]!];
      swatch.style.setProperty("background-color", person.color);
      const more = [person.self ? "you" : "", person.immersed ? "in a headset" : "", person.pulls > 0 ? "pulling" : ""].filter(Boolean);
      setText(text, person.name + (more.length > 0 ? ` (${more.join(", ")})` : ""));
    });
  }

  // What is chosen.

  #apply(settings: Settings): void {
    localStorage.setItem(KEPT, JSON.stringify(settings));
    this.#scene?.setRepresentation(settings.representation, settings.colors);
    this.#scene?.setSmoothing(settings.smoothing);
    this.#scene?.setShowBox(settings.box);
    if (this.#touch !== null) this.#touch.settings = pullSettings(settings);
    this.#applyTheme(settings);
  }

  #applyTheme({ theme }: Settings): void {
    const dark = theme === "system" ? matchMedia("(prefers-color-scheme: dark)").matches : theme === "dark";
    document.documentElement.dataset["theme"] = dark ? "dark" : "light";
    this.#scene?.setTheme(dark ? "dark" : "light");
  }

  #press(event: KeyboardEvent): void {
    if (document.querySelector("dialog[open]") !== null) return;
    const action = actionOf(event, document.activeElement?.tagName ?? "");
    if (action === null) return;
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
        return this.#showSide(this.#side.hidden === true);
      case "help":
        return this.#help.showModal();
      case "nudge":
        return this.#touch?.nudge(action.dx, action.dy);
      case "representation": {
        const [value, label] = CHOICES.representation.options[action.index]!;
        this.#controls.choose("representation", value);
        return this.announce(label);
      }
    }
  }

  #showSide(shown: boolean): void {
    this.#side.hidden = !shown;
    this.element.classList.toggle("with-side", shown);
    this.#sideButton.setAttribute("aria-expanded", String(shown));
  }

  #showInvite(): void {
    this.#invite.show(inviteUrl(location.origin, this.#around.code()));
  }

  #button(label: string, onclick: () => void): HTMLButtonElement {
    return make("button", { type: "button", textContent: label, onclick });
  }

  #run(command: string, done: string): void {
    this.#session.run(command).then(
      () => this.announce(done),
      (error: Error) => this.announce(error.message),
    );
  }

  async #offerXr(touch: Touch): Promise<void> {
    const { xr } = touch;
    const { vr, ar, reason } = await xr.support();
    const enter = (mode: XrMode) => void xr.enter(mode).catch((error: Error) => this.announce(error.message));
    const offered: [boolean, XrMode, string][] = [
      [vr, "immersive-vr", "Enter VR"],
      [ar, "immersive-ar", "Enter AR"],
    ];
    for (const [there, mode, label] of offered) {
      if (there) this.#xr.append(this.#button(label, () => enter(mode)));
    }
    if (vr) this.#gap.after(iconButton("headset", "Enter VR", () => enter("immersive-vr")));
    setText(this.#xrNote, vr || ar ? "" : reason);
    if (!(vr || ar)) return;
    const shared = make("input", { id: "share-place", type: "checkbox", checked: xr.sharePlace });
    shared.onchange = () => (xr.sharePlace = shared.checked);
    this.#xrNote.before(make("div", { className: "switch" }, shared, make("label", { htmlFor: shared.id, textContent: "Move the box for everybody" })));
    const leave = this.#button("Leave the headset", () => xr.leave());
    leave.hidden = true;
    this.#xr.append(leave);
    this.#leaving.push(
      xr.on(() => {
        leave.hidden = xr.active === null;
        shared.checked = xr.sharePlace;
      }),
    );
  }
}

function section(title: string, open: boolean, ...children: HTMLElement[]): HTMLDetailsElement {
  return make("details", { open }, make("summary", { textContent: title }), ...children);
}

function helpDialog(): HTMLDialogElement {
  const rows = SHORTCUTS.map(({ shown, does }) => make("div", {}, make("dt", {}, make("kbd", { textContent: shown })), make("dd", { textContent: does })));
  const dialog: HTMLDialogElement = make(
    "dialog",
    { className: "dialog", attributes_: { "aria-labelledby": "help-title" } },
    make("h2", { id: "help-title", textContent: "Keys and gestures" }),
    make("p", { textContent: "Drag the background to turn, with the right button or two fingers to move, and scroll or pinch to come closer. Drag an atom to pull it." }),
    make("dl", { className: "keys" }, ...rows),
    make("div", { className: "row" }, make("button", { type: "button", className: "primary", textContent: "Close", onclick: () => dialog.close() })),
  );
  return dialog;
}
