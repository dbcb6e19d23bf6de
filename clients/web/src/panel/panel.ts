/** Everything that is HTML, over the picture of the simulation. */

import type { Panel, PullChoice, SceneView, Session, Touch } from "../contracts.ts";
import { inviteUrl } from "../session/address.ts";
import { Roster } from "../session/roster.ts";
import { Controls } from "./controls.ts";
import { iconButton, make, setText } from "./elements.ts";
import { Headset } from "./headset.ts";
import { helpDialog } from "./help.ts";
import { InviteDialog } from "./invite.ts";
import { actionOf } from "./keys.ts";
import { ManageDialog } from "./manage.ts";
import { PeopleList } from "./people-list.ts";
import { Playback } from "./playback.ts";
import { markedWords, SelectionList } from "./selection-list.ts";
import { CHOICES, pullSettings, readSettings, type Settings } from "./settings.ts";
import { Trouble } from "./trouble.ts";
import { Values } from "./values.ts";
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
  readonly #controls: Controls;
  readonly #playback: Playback;
  readonly #values = new Values();
  readonly #roster: Roster;
  readonly #people: PeopleList;
  readonly #manage: ManageDialog;
  readonly #manageButton = this.#button("Manage people…", () => this.#manage.open(this.#people.people));
  readonly #selections: SelectionList;
  readonly #headset: Headset;
  readonly #invite = new InviteDialog();
  readonly #help = helpDialog();
  readonly #trouble: Trouble;
  readonly #said = make("div", { className: "said", attributes_: { role: "status", "aria-live": "polite" } });
  readonly #status = make("p", { className: "facts", textContent: "Waiting for the simulation…" });
  readonly #hovered = make("p", { className: "hovered" });
  readonly #roleHint = make("p", { className: "hint" });
  readonly #side: HTMLElement;
  readonly #sideButton: HTMLButtonElement;
  readonly #markButton: HTMLButtonElement;
  readonly #leaving: (() => void)[] = [];
  #scene: SceneView | null = null;
  #touch: Touch | null = null;
  #topology = -1;
  #saidTimer: ReturnType<typeof setTimeout> | null = null;
  #stateChanged = true;
  #wasOpen = false;

  constructor(around: Surroundings) {
    const { session } = around;
    const say = (text: string) => this.announce(text);
    this.#session = session;
    this.#controls = new Controls(readSettings(localStorage.getItem(KEPT)), (settings) => this.#apply(settings));
    const controls = this.#controls;
    this.#playback = new Playback(session, say);
    this.#headset = new Headset(session, say);
    this.#trouble = new Trouble(session, () => this.#playback.reset(), (id) => this.#people.nameOf(id));
    this.#roster = new Roster(session, () => (this.#stateChanged = true));
    this.#people = new PeopleList(session, this.#roster);
    this.#manage = new ManageDialog(session, () => this.#roster.refresh());
    this.#markButton = iconButton("mark", "Mark atoms", () => this.#toggleMarking(), "e");
    this.#markButton.setAttribute("aria-pressed", "false");
    this.#selections = new SelectionList(session, say, controls.field("unit"));
    this.#side = make(
      "aside",
      { id: "side", className: "side", attributes_: { "aria-label": "Session and settings" } },
      make("details", { open: true }, this.#people.title, this.#people.list, this.#roleHint, this.#manageButton),
      section("Simulation", true, ...this.#playback.fields),
      section("Values", true, this.#values.element),
      section("Pull", true, controls.field("target"), controls.field("law"), controls.field("strength"), controls.field("resetVelocities"), this.#button("Let go of everything", () => this.#touch?.releaseAll())),
      section("Selections", true, this.#selections.element),
      section("Look", true, controls.field("representation"), controls.field("colors"), controls.field("smoothing"), controls.field("box"), this.#button("Look at everything", () => this.#scene?.resetCamera())),
      section("Headset", false, ...this.#headset.fields),
      section("Page", false, controls.field("theme"), this.#button("Leave the session", () => around.onLeave())),
    );
    this.#sideButton = iconButton("menu", "Panel", () => this.#showSide(this.#side.hidden === true), "p");
    this.#sideButton.setAttribute("aria-controls", "side");
    const bar = make(
      "div",
      { className: "bar", attributes_: { role: "toolbar", "aria-label": "Simulation" } },
      ...this.#playback.buttons,
      this.#headset.gap,
      this.#markButton,
      iconButton("invite", "Invite", () => this.#invite.show(inviteUrl(location.origin, around.code()))),
      iconButton("help", "Keys and gestures", () => this.#help.showModal(), "?"),
      this.#sideButton,
    );
    const footer = make("footer", { className: "foot" }, make("div", { className: "line" }, this.#people.role, this.#status, this.#hovered), bar);
    this.element = make("main", { className: "session" }, make("h1", { className: "unseen", textContent: "Narupa session" }), this.stage, this.#trouble.element, this.#said, footer, this.#side, this.#invite.element, this.#help, this.#manage.element);
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
    scene.canvas.setAttribute("aria-label", "The simulation. Drag to turn it, drag an atom to pull it; arrow keys pull what is highlighted, Enter marks it.");
    this.#selections.attach(touch.marks);
    this.#leaving.push(
      touch.on("hover", () => this.#showHovered()),
      touch.marks.on(() => this.#showMarks(touch)),
    );
    this.#apply(this.#controls.settings);
    void this.#headset.offer(touch, (undo) => this.#leaving.push(undo));
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
      session.on("frame", () => this.#values.note(session.frame)),
      session.on("status", () => this.#showStatus()),
      () => clearInterval(timer),
      () => removeEventListener("keydown", onKey),
      () => scheme.removeEventListener("change", onScheme),
    );
    this.#showStatus();
  }

  #look(): void {
    if (document.hidden) return;
    const [frame, now] = [this.#session.frame, performance.now()];
    this.#roster.look(now);
    this.#playback.look(now);
    if (this.#scene !== null) this.#values.measured(this.#scene.stats().fps);
    if (!this.#side.hidden) this.#values.draw();
    if (this.#stateChanged) {
      this.#stateChanged = false;
      this.#showState();
    }
    if (frame !== null) {
      setText(this.#status, frameWords(frame));
      if (frame.topologySerial !== this.#topology) {
        this.#topology = frame.topologySerial;
        this.#showHovered();
      }
    }
    this.#trouble.look(this.#people.mayRun);
  }

  #showStatus(): void {
    const open = this.#session.status.kind === "open";
    if (open && !this.#wasOpen) {
      this.#playback.forget();
      this.#roster.refresh();
    }
    this.#wasOpen = open;
    this.#stateChanged = true;
    this.#trouble.look(this.#people.mayRun);
  }

  #showState(): void {
    const people = this.#people;
    people.show();
    this.#selections.show();
    this.#selections.allow(!people.watching);
    this.#playback.allow(people.mayRun);
    this.#manageButton.hidden = this.#roster.roll.role !== "host";
    if (this.#manage.element.open) this.#manage.show(people.people);
    setText(this.#roleHint, people.watching ? "To take part, ask a host for another role." : "");
  }

  #showHovered(): void {
    const [frame, particle] = [this.#session.frame, this.#touch?.hovered ?? null];
    setText(this.#hovered, frame === null || particle === null ? "" : particleWords(frame, particle));
  }

  #showMarks({ marks }: Touch): void {
    this.#markButton.setAttribute("aria-pressed", String(marks.active));
    this.#selections.showMarked();
    this.announce(marks.particles.length > 0 ? markedWords(marks.particles.length) : marks.active ? "Tap or click atoms to mark them" : "Nothing is marked");
  }

  // What is chosen.

  #apply(settings: Settings): void {
    localStorage.setItem(KEPT, JSON.stringify(settings));
    this.#scene?.setRepresentation(settings.representation, settings.colors);
    this.#scene?.setSmoothing(settings.smoothing);
    this.#scene?.setShowBox(settings.box);
    if (this.#touch !== null) {
      this.#touch.settings = pullSettings(settings);
      this.#touch.marks.unit = settings.unit;
    }
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
        this.#touch?.releaseAll();
        return this.#touch?.marks.set([]);
      case "camera":
        return this.#scene?.resetCamera();
      case "panel":
        return this.#showSide(this.#side.hidden === true);
      case "help":
        return this.#help.showModal();
      case "marking":
        return this.#toggleMarking();
      case "mark":
        return this.#touch?.marks.here();
      case "nudge":
        return this.#touch?.nudge(action.dx, action.dy);
      case "representation": {
        const [value, label] = CHOICES.representation.options[action.index]!;
        this.#controls.choose("representation", value);
        return this.announce(label);
      }
    }
  }

  #toggleMarking(): void {
    const marks = this.#touch?.marks;
    if (marks !== undefined) marks.active = !marks.active;
  }

  #showSide(shown: boolean): void {
    this.#side.hidden = !shown;
    this.element.classList.toggle("with-side", shown);
    this.#sideButton.setAttribute("aria-expanded", String(shown));
    if (shown) this.#values.draw();
  }

  #button(label: string, onclick: () => void): HTMLButtonElement {
    return make("button", { type: "button", textContent: label, onclick });
  }
}

function section(title: string, open: boolean, ...children: HTMLElement[]): HTMLDetailsElement {
  return make("details", { open }, make("summary", { textContent: title }), ...children);
}
