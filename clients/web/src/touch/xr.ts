/** Headsets: the molecule in the room, grabbed with each hand, moved with one and stretched between two. */

import { type Color, type Material, Matrix4, type Object3D, PolarGridHelper } from "three";
import type { PullChoice, PullSettings, SceneView, Session, XrControl, XrMode } from "../contracts.ts";
import type { Grabs } from "./grabs.ts";
import { Hand } from "./hand.ts";
import { HandHolds } from "./hand-holds.ts";
import { HandMenu } from "./hand-menu.ts";
import { knowsFloor, qualityFor, refused, requestHeadset, xrSupport } from "./headset.ts";
import type { MenuAction } from "./menu-layout.ts";
import type { Place } from "./place.ts";
import { RateLimit } from "./rate.ts";
import { Sign } from "./sign.ts";

const LOOKS_PER_SECOND = 12;
const WELCOME_MS = 9000;
const FLOOR_METRES = 2.5;

const WELCOME =
  "Trigger or pinch: pull an atom. Grip, or pinch beside it: move the molecule, with two hands its size. Turn a palm to your face for the menu.";
const BACK = "The session is back.";

export interface XrOptions {
  /** How pulls are made now. */
  readonly settings: () => Readonly<PullSettings>;
  readonly ownColor: () => Color;
  /** What the hands would grab, or do, is another. */
  readonly onHover: () => void;
  /** Pulls are to be made otherwise. */
  readonly onChoice: (choice: PullChoice) => void;
}

export class Xr implements XrControl {
  active: XrMode | null = null;
  /** Where the head is while a headset is worn, between the eyes, world space. */
  readonly head = new Matrix4();
  private worn: XRSession | null = null;
  private hands: readonly Hand[] = [];
  private menu: HandMenu | null = null;
  private sign: Sign | null = null;
  private floor: PolarGridHelper | null = null;
  /** Whether the molecule has been brought before whoever put the headset on. */
  private arrived = false;
  private troubled = false;
  private readonly listeners = new Set<() => void>();
  private undo: (() => void)[] = [];
  private readonly lookRate = new RateLimit(LOOKS_PER_SECOND);

  private readonly holds: HandHolds;
  private readonly isFree = (hand: Hand): boolean => !hand.carries && this.grabs.of(hand.pointer) === null;

  constructor(
    private readonly session: Session,
    private readonly view: SceneView,
    private readonly grabs: Grabs,
    private readonly place: Place,
    private readonly options: XrOptions,
  ) {
    this.holds = new HandHolds(session, view, grabs, options.settings, options.onHover);
  }

  readonly support = xrSupport;

  get sharePlace(): boolean {
    return this.place.shared;
  }

  set sharePlace(shared: boolean) {
    this.place.shared = shared;
    this.tell();
  }

  on(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  async enter(mode: XrMode): Promise<void> {
    if (this.worn !== null) return;
    const session = await requestHeadset(mode);
    this.worn = session;
    this.listen(session, "end", () => this.ended());
    this.listen(session, "visibilitychange", () => session.visibilityState !== "visible" && this.letGoOfEverything());
    const { xr } = this.view.renderer;
    const { scale, foveation } = qualityFor(this.session.frame?.particleCount ?? 0);
    try {
      xr.enabled = true;
      xr.setReferenceSpaceType(knowsFloor(session) ? "local-floor" : "local");
      xr.setFramebufferScaleFactor(scale);
      await xr.setSession(session);
      xr.setFoveation(foveation);
    } catch (error) {
      await session.end().catch(() => undefined);
      if (this.worn !== null) this.ended();
      throw refused(error);
    }
    this.begin(mode, session);
  }

  leave(): void {
    void this.worn?.end().catch(() => undefined);
  }

  /** A sentence for whoever wears the headset. */
  say(sentence: string): void {
    this.sign?.say(sentence, performance.now());
  }

  /** The particles that the hands would grab. */
  hovered(add: (particle: number) => void): void {
    for (const hand of this.hands) if (hand.hovered >= 0) add(hand.hovered);
  }

  /** Where one of the hands is, world space; null where it is not tracked. */
  hand(side: XRHandedness): Matrix4 | null {
    for (const { source, grip } of this.hands) if (source?.handedness === side && grip.visible) return grip.matrixWorld;
    return null;
  }

  /** To be called when the connection is another: whoever wears a headset does not see what the page says. */
  onStatus(): void {
    const { status } = this.session;
    if (this.sign === null || status.kind === "connecting") return;
    this.sign.warn(status.kind === "lost" ? `${status.reason} Trying again…` : "");
    if (status.kind === "open" && this.troubled) this.say(BACK);
    this.troubled = status.kind === "lost";
  }

  /** To be called once per animation frame, before grabs are written. */
  tick(nowMs: number, elapsedMs: number): void {
    if (this.active === null || !this.tracked()) return;
    const { hands, head, menu } = this;
    for (const hand of hands) hand.updateMatrices();
    this.place.carry();
    menu?.follow(head, hands, this.isFree, elapsedMs);
    const looking = this.lookRate.take(nowMs);
    for (const hand of hands) {
      const menuAt = this.isFree(hand) ? (menu?.aimedAt(hand) ?? null) : null;
      if (this.holds.move(hand)) continue;
      if (menuAt !== null || menu?.holder === hand) {
        hand.reach(menuAt ?? 0);
        this.holds.hover(hand, -1);
      } else if (looking) this.holds.look(hand);
    }
    menu?.show(hands, this.options.settings(), this.place.shared);
    this.sign?.tick(nowMs, elapsedMs, head);
    this.place.tell(nowMs);
  }

  dispose(): void {
    this.leave();
    if (this.worn !== null) this.ended();
    this.listeners.clear();
  }

  private begin(mode: XrMode, session: XRSession): void {
    const { renderer, worldRoot } = this.view;
    this.active = mode;
    this.arrived = false;
    this.hands = [0, 1].map((index) => new Hand(index, renderer.xr.getController(index), renderer.xr.getControllerGrip(index)));
    for (const hand of this.hands) {
      worldRoot.add(hand.aim, hand.grip);
      hand.colored(this.options.ownColor());
      this.hear(hand.aim, "connected", (event) => (hand.source = event.data ?? null));
      this.hear(hand.aim, "disconnected", () => this.lose(hand));
      this.hear(hand.aim, "selectstart", () => this.press(hand));
      this.hear(hand.aim, "selectend", () => this.letGo(hand));
      this.hear(hand.aim, "squeezestart", () => this.carry(hand, true));
      this.hear(hand.aim, "squeezeend", () => this.carry(hand, false));
    }
    this.menu = new HandMenu(worldRoot);
    this.sign = new Sign(worldRoot);
    this.sign.say(WELCOME, performance.now(), WELCOME_MS);
    this.onStatus();
    if (mode === "immersive-vr" && knowsFloor(session)) {
      this.floor = new PolarGridHelper(FLOOR_METRES, 12, 5, 48, 0x8a94a6, 0x8a94a6);
      Object.assign(this.floor.material as Material, { transparent: true, opacity: 0.35 });
      worldRoot.add(this.floor);
    }
    this.view.setPointerCaptured(true);
    this.tell();
  }

  private ended(): void {
    const { worldRoot } = this.view;
    this.worn = null;
    this.active = null;
    for (const undo of this.undo) undo();
    this.undo = [];
    for (const hand of this.hands) {
      this.grabs.end(hand.pointer);
      worldRoot.remove(hand.aim, hand.grip);
      hand.dispose();
    }
    this.hands = [];
    this.menu?.dispose();
    this.sign?.dispose();
    if (this.floor !== null) worldRoot.remove(this.floor);
    this.floor?.dispose();
    this.menu = this.sign = this.floor = null;
    this.troubled = false;
    this.place.restore();
    this.view.setPointerCaptured(false);
    this.options.onHover();
    this.tell();
  }

  /** The head is where the headset says; returns whether it has said so yet. From then on the molecule is before it. */
  private tracked(): boolean {
    const { xr } = this.view.renderer;
    const space = xr.getReferenceSpace();
    const pose = space === null ? null : xr.getFrame()?.getViewerPose(space);
    if (pose == null) return this.arrived;
    this.head.fromArray(pose.transform.matrix);
    if (!this.arrived) this.place.bring(this.head);
    this.arrived = true;
    return true;
  }

  /** What a hand points at on the menu is done, or what it would hold is held. */
  private press(hand: Hand): void {
    if (this.menu?.holder === hand) return; // headsets have a meaning of their own for a pinch before the face
    if (this.menu !== null && this.menu.aimedAt(hand) !== null) {
      const item = this.menu.itemFor(hand);
      if (item === null) return;
      hand.pulse(0.5, 20);
      this.act(item.action);
      return;
    }
    const particle = this.holds.find(hand);
    if (particle >= 0) this.holds.begin(hand, particle);
    else if (hand.bare) this.carry(hand, true);
  }

  private act(action: MenuAction): void {
    const say = (text: string) => this.say(text);
    switch (action.kind) {
      case "run":
        this.session.run(action.command).then(
          () => say(action.done),
          (error: Error) => say(error.message),
        );
        return;
      case "law":
        return this.options.onChoice({ law: action.law });
      case "strength":
        return this.options.onChoice({ stronger: action.steps });
      case "bring":
        return this.place.bring(this.head);
      case "share":
        this.sharePlace = !this.sharePlace;
        return say(this.sharePlace ? "Others see the box move." : "The box moves for you alone.");
      case "leave":
        return this.leave();
    }
  }

  private letGo(hand: Hand): void {
    if (hand.bare) this.carry(hand, false);
    this.holds.end(hand);
  }

  private carry(hand: Hand, on: boolean): void {
    if (hand.carries === on) return;
    hand.carries = on;
    this.place.carriedBy(this.hands.filter((one) => one.carries));
    if (on) hand.pulse(0.4, 20);
  }

  private lose(hand: Hand): void {
    hand.source = null;
    this.holds.hover(hand, -1);
    this.grabs.end(hand.pointer);
    this.carry(hand, false);
  }

  private letGoOfEverything(): void {
    for (const hand of this.hands) {
      this.grabs.end(hand.pointer);
      this.carry(hand, false);
    }
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }

  private listen(target: EventTarget, event: string, listener: () => void): void {
    target.addEventListener(event, listener);
    this.undo.push(() => target.removeEventListener(event, listener));
  }

  /** As `listen`, for what three.js says of a controller. */
  private hear(target: Object3D, event: string, listener: (event: { data?: XRInputSource }) => void): void {
    const emitter = target as unknown as { addEventListener: Emit; removeEventListener: Emit };
    emitter.addEventListener(event, listener);
    this.undo.push(() => emitter.removeEventListener(event, listener));
  }
}

type Emit = (event: string, listener: (event: { data?: XRInputSource }) => void) => void;
