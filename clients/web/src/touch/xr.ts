/** Headsets: the molecule in the room, grabbed with each hand, moved with one and stretched between two. */

import {
  BufferAttribute,
  BufferGeometry,
  Line,
  LineBasicMaterial,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  Quaternion,
  SphereGeometry,
  Vector3,
  type Color,
  type Object3D,
} from "three";
import type { PullSettings, SceneView, Session, XrControl, XrMode } from "../contracts.ts";
import { centreOf } from "./centre.ts";
import type { Point, ReadonlyPoint } from "./drag.ts";
import type { Grabs } from "./grabs.ts";
import { extentOf, nearestParticle } from "./nearest.ts";
import { RateLimit } from "./rate.ts";
import { Spaces } from "./spaces.ts";
import { targetOf } from "./targets.ts";
import { oneHandTransform, twoHandTransform } from "./two-hands.ts";

/** Where the molecule is at first, metres: before the chest, half a metre in radius. */
const PLACE = new Vector3(0, 1.15, -0.9);
const RADIUS = 0.45;
const LARGEST_NM = 0.6;
/** How small and how large a nanometre can be made, metres. */
const MIN_SCALE = 0.005;
const MAX_SCALE = 10;
/** What is this close to a hand is grabbed, metres; beyond, what its ray meets within the slack. */
const NEAR = 0.06;
const RAY_SLACK = 0.02;
const RAY_LENGTH = 1.5;
const LOOKS_PER_SECOND = 12;
const PLACES_PER_SECOND = 10;
/** How long others' answer to a shared place is waited for, ms. */
const ECHO_MS = 1000;

const NO_HEADSET = "No headset was found. Open this page in a headset's browser, or connect one to this computer.";
const INSECURE = "Headsets need a page that came over TLS: open the session's https address.";
const NOT_ALLOWED = "The browser did not let this page use the headset. Allow it in the page's settings, and try again.";

/** What a browser says when it does not start a headset, for a person. */
function refused(error: unknown): Error {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  const sentence =
    name === "NotSupportedError" ? NO_HEADSET : name === "NotAllowedError" || name === "SecurityError" ? NOT_ALLOWED : `The headset did not start: ${message}`;
  return new Error(sentence, { cause: error });
}

interface Pulser {
  pulse?: (strength: number, ms: number) => Promise<unknown>;
}

/** What a headset here offers. */
export async function xrSupport(): Promise<{ readonly vr: boolean; readonly ar: boolean; readonly reason: string }> {
  const system = (navigator as Navigator & { xr?: XRSystem }).xr;
  if (system === undefined) return { vr: false, ar: false, reason: isSecureContext ? NO_HEADSET : INSECURE };
  const offers = (mode: XrMode) => system.isSessionSupported(mode).catch(() => false);
  const [vr, ar] = await Promise.all([offers("immersive-vr"), offers("immersive-ar")]);
  return { vr, ar, reason: vr || ar ? "" : NO_HEADSET };
}

/** One tracked controller or hand. */
class Hand {
  readonly pointer: string;
  source: XRInputSource | null = null;
  squeezing = false;
  /** The particle that would be grabbed; -1 for none. */
  hovered = -1;
  /** The handle as the hand sees it. */
  readonly held = new Vector3();
  /** Where the hand was when the box was taken. */
  readonly start = new Matrix4();
  readonly ray: Line;
  readonly tip: Mesh;

  constructor(
    index: number,
    /** Where it points from, world space. */
    readonly aim: Object3D,
    /** Where it is held, world space. */
    readonly grip: Object3D,
  ) {
    this.pointer = `hand-${index}`;
    const line = new BufferGeometry();
    line.setAttribute("position", new BufferAttribute(new Float32Array([0, 0, 0, 0, 0, -1]), 3));
    this.ray = new Line(line, new LineBasicMaterial({ transparent: true, opacity: 0.5 }));
    this.tip = new Mesh(new SphereGeometry(0.008, 12, 8), new MeshBasicMaterial());
    aim.add(this.ray, this.tip);
  }

  colored(color: Color): void {
    (this.ray.material as LineBasicMaterial).color.copy(color);
    (this.tip.material as MeshBasicMaterial).color.copy(color);
  }

  pulse(strength: number, ms: number): void {
    const actuator = this.source?.gamepad?.hapticActuators?.[0] as Pulser | undefined;
    actuator?.pulse?.(strength, ms)?.catch(() => undefined);
  }

  dispose(): void {
    this.aim.remove(this.ray, this.tip);
    this.ray.geometry.dispose();
    (this.ray.material as LineBasicMaterial).dispose();
    this.tip.geometry.dispose();
    (this.tip.material as MeshBasicMaterial).dispose();
  }
}

export class Xr implements XrControl {
  active: XrMode | null = null;
  sharePlace = false;
  private current: XRSession | null = null;
  private hands: Hand[] = [];
  private readonly listeners = new Set<() => void>();
  private undo: (() => void)[] = [];

  /** Between server space and the world when the box was last taken. */
  private readonly taken = new Spaces();
  private readonly rootStart = new Matrix4();
  private readonly placeRate = new RateLimit(PLACES_PER_SECOND);
  private readonly lookRate = new RateLimit(LOOKS_PER_SECOND);
  private placedUntil = Number.NEGATIVE_INFINITY;
  private placeDue = false;

  private readonly before = { position: new Vector3(), quaternion: new Quaternion(), scale: new Vector3() };
  private readonly inverse = new Matrix4();
  private readonly matrix = new Matrix4();
  private readonly a0 = new Vector3();
  private readonly b0 = new Vector3();
  private readonly a1 = new Vector3();
  private readonly b1 = new Vector3();
  private readonly vector = new Vector3();
  private readonly point: Point = [0, 0, 0];
  private readonly aim: Point = [0, 0, 0];
  private readonly centre: Point = [0, 0, 0];
  private readonly sight = { origin: this.point as ReadonlyPoint, direction: this.aim as ReadonlyPoint };
  private readonly positionOf = (particle: number, out: Point): Point => this.view.positionOf(particle, out);

  constructor(
    private readonly session: Session,
    private readonly view: SceneView,
    private readonly grabs: Grabs,
    private readonly settings: () => Readonly<PullSettings>,
    private readonly ownColor: () => Color,
    /** What the hands would grab, or do, is another. */
    private readonly onHover: () => void,
  ) {}

  readonly support = xrSupport;

  on(listener: () => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  async enter(mode: XrMode): Promise<void> {
    if (this.current !== null) return;
    const system = (navigator as Navigator & { xr?: XRSystem }).xr;
    if (system === undefined) throw new Error(isSecureContext ? NO_HEADSET : INSECURE);
    const { xr } = this.view.renderer;
    let session: XRSession;
    try {
      session = await system.requestSession(mode, { optionalFeatures: ["local-floor", "hand-tracking"] });
    } catch (error) {
      throw refused(error);
    }
    this.current = session;
    const ended = () => this.ended();
    session.addEventListener("end", ended);
    this.undo.push(() => session.removeEventListener("end", ended));
    try {
      xr.enabled = true;
      xr.setReferenceSpaceType(session.enabledFeatures?.includes("local-floor") === false ? "local" : "local-floor");
      await xr.setSession(session);
    } catch (error) {
      await session.end().catch(() => undefined);
      if (this.current !== null) this.ended();
      throw refused(error);
    }
    this.begin(mode);
  }

  leave(): void {
    void this.current?.end().catch(() => undefined);
  }

  /** Whether the place of the box is ahead of what the session has heard of it. */
  placing(nowMs: number): boolean {
    return this.placeDue || nowMs < this.placedUntil;
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

  /** To be called once per animation frame, before grabs are written. */
  tick(nowMs: number): void {
    if (this.active === null) return;
    for (const hand of this.hands) {
      hand.aim.updateWorldMatrix(true, false);
      hand.grip.updateWorldMatrix(true, false);
    }
    this.moveBox();
    const looking = this.lookRate.take(nowMs);
    this.view.simulationRoot.updateWorldMatrix(true, false);
    this.inverse.copy(this.view.simulationRoot.matrixWorld).invert();
    for (const hand of this.hands) {
      if (this.grabs.of(hand.pointer) !== null) {
        this.vector.copy(hand.held).applyMatrix4(hand.aim.matrixWorld).applyMatrix4(this.inverse).toArray(this.point);
        this.grabs.move(hand.pointer, this.point);
      } else if (looking) this.look(hand);
    }
    this.tellPlace(nowMs);
  }

  dispose(): void {
    this.leave();
    if (this.current !== null) this.ended();
    this.listeners.clear();
  }

  private begin(mode: XrMode): void {
    const { renderer, worldRoot, simulationRoot } = this.view;
    this.active = mode;
    this.hands = [0, 1].map((index) => new Hand(index, renderer.xr.getController(index), renderer.xr.getControllerGrip(index)));
    for (const hand of this.hands) {
      worldRoot.add(hand.aim, hand.grip);
      hand.colored(this.ownColor());
      this.listen(hand.aim, "connected", (event) => (hand.source = event.data ?? null));
      this.listen(hand.aim, "disconnected", () => this.lose(hand));
      this.listen(hand.aim, "selectstart", () => this.grab(hand));
      this.listen(hand.aim, "selectend", () => this.letGo(hand));
      this.listen(hand.aim, "squeezestart", () => this.squeeze(hand, true));
      this.listen(hand.aim, "squeezeend", () => this.squeeze(hand, false));
    }
    this.before.position.copy(simulationRoot.position);
    this.before.quaternion.copy(simulationRoot.quaternion);
    this.before.scale.copy(simulationRoot.scale);
    this.bringHere();
    this.view.setPointerCaptured(true);
    this.tell();
  }

  private ended(): void {
    const { worldRoot, simulationRoot } = this.view;
    const began = this.active !== null;
    this.current = null;
    this.active = null;
    for (const undo of this.undo) undo();
    this.undo = [];
    for (const hand of this.hands) {
      this.grabs.end(hand.pointer);
      worldRoot.remove(hand.aim, hand.grip);
      hand.dispose();
    }
    this.hands = [];
    this.placeDue = false;
    if (began) {
      simulationRoot.position.copy(this.before.position);
      simulationRoot.quaternion.copy(this.before.quaternion);
      simulationRoot.scale.copy(this.before.scale);
      simulationRoot.updateWorldMatrix(true, true);
    }
    this.view.setPointerCaptured(false);
    this.onHover();
    this.tell();
  }

  /** The molecule is before us, in a size to work with, turned so that others in headsets stand upright beside it. */
  private bringHere(): void {
    const { simulationRoot } = this.view;
    const { centre, radius } = extentOf(this.session.frame);
    const scale = Math.min(LARGEST_NM, RADIUS / radius);
    this.taken.setScene(this.session.state.get("scene"));
    this.taken.uprightRoot(simulationRoot.quaternion);
    simulationRoot.scale.setScalar(scale);
    this.vector.fromArray(centre).multiplyScalar(scale).applyQuaternion(simulationRoot.quaternion);
    simulationRoot.position.copy(PLACE).sub(this.vector);
    simulationRoot.updateWorldMatrix(true, true);
  }

  private grab(hand: Hand): void {
    const { frame } = this.session;
    if (frame === null) return;
    const particle = this.find(hand);
    const target = targetOf(particle, frame, this.session.state, this.settings().target);
    if (!centreOf(target.particles, frame, this.positionOf, this.centre)) return;
    if (!this.grabs.begin(hand.pointer, target, this.centre, performance.now())) return;
    this.vector.fromArray(this.centre).applyMatrix4(this.view.simulationRoot.matrixWorld);
    hand.held.copy(this.vector).applyMatrix4(this.matrix.copy(hand.aim.matrixWorld).invert());
    hand.hovered = -1;
    hand.pulse(0.7, 40);
    this.onHover();
  }

  private letGo(hand: Hand): void {
    if (this.grabs.of(hand.pointer) === null) return;
    this.grabs.end(hand.pointer);
    hand.pulse(0.3, 20);
    this.onHover();
  }

  private lose(hand: Hand): void {
    hand.source = null;
    hand.hovered = -1;
    this.grabs.end(hand.pointer);
    if (hand.squeezing) this.squeeze(hand, false);
  }

  /** What the hand would grab; -1 for nothing. */
  private find(hand: Hand): number {
    const { frame } = this.session;
    if (frame === null) return -1;
    const { simulationRoot } = this.view;
    simulationRoot.updateWorldMatrix(true, false);
    this.inverse.copy(simulationRoot.matrixWorld).invert();
    const nmPerMetre = 1 / simulationRoot.matrixWorld.getMaxScaleOnAxis();
    this.vector.setFromMatrixPosition(hand.aim.matrixWorld).applyMatrix4(this.inverse).toArray(this.point);
    const near = nearestParticle(frame, this.point, NEAR * nmPerMetre);
    if (near >= 0) return near;
    this.vector.set(0, 0, -1).transformDirection(hand.aim.matrixWorld).transformDirection(this.inverse).toArray(this.aim);
    return this.view.pick(this.sight, RAY_SLACK * nmPerMetre)?.particle ?? -1;
  }

  private look(hand: Hand): void {
    const found = hand.source === null ? -1 : this.find(hand);
    let length = RAY_LENGTH;
    if (found >= 0) {
      const position = this.view.positionOf(found, this.point);
      this.vector.fromArray(position).applyMatrix4(this.view.simulationRoot.matrixWorld);
      length = this.vector.distanceTo(this.a1.setFromMatrixPosition(hand.aim.matrixWorld));
    }
    hand.ray.scale.z = length;
    if (found === hand.hovered) return;
    if (found >= 0) hand.pulse(0.1, 8);
    hand.hovered = found;
    this.onHover();
  }

  private squeeze(hand: Hand, on: boolean): void {
    this.moveBox();
    hand.squeezing = on;
    const { simulationRoot } = this.view;
    simulationRoot.updateWorldMatrix(true, false);
    this.rootStart.copy(simulationRoot.matrixWorld);
    for (const one of this.hands) one.start.copy(one.aim.matrixWorld);
    // While it is being moved, what it is moved against is where it was when it was taken first.
    if (on && !this.placeDue) {
      this.taken.setScene(this.session.state.get("scene"));
      this.taken.setRoot(this.rootStart);
    }
    if (on) hand.pulse(0.4, 20);
  }

  private moveBox(): void {
    const [left, right] = this.hands;
    if (left === undefined || right === undefined || !(left.squeezing || right.squeezing)) return;
    if (left.squeezing && right.squeezing) {
      const scale = this.rootStart.getMaxScaleOnAxis();
      twoHandTransform(
        this.a0.setFromMatrixPosition(left.start),
        this.b0.setFromMatrixPosition(right.start),
        this.a1.setFromMatrixPosition(left.aim.matrixWorld),
        this.b1.setFromMatrixPosition(right.aim.matrixWorld),
        MIN_SCALE / scale,
        MAX_SCALE / scale,
        this.matrix,
      );
    } else {
      const hand = left.squeezing ? left : right;
      oneHandTransform(hand.start, hand.aim.matrixWorld, this.matrix);
    }
    this.matrix.multiply(this.rootStart);
    const { simulationRoot } = this.view;
    if (simulationRoot.parent !== null) this.matrix.premultiply(this.inverse.copy(simulationRoot.parent.matrixWorld).invert());
    this.matrix.decompose(simulationRoot.position, simulationRoot.quaternion, simulationRoot.scale);
    simulationRoot.updateWorldMatrix(true, true);
    if (this.sharePlace) this.placeDue = true;
  }

  /** Others see the box move where that is wanted, and where we may. */
  private tellPlace(nowMs: number): void {
    if (!this.placeDue || !this.placeRate.take(nowMs)) return;
    const moving = this.hands.some((hand) => hand.squeezing);
    if (!moving) this.placeDue = false;
    this.placedUntil = nowMs + ECHO_MS;
    this.session.write({ scene: this.taken.sceneFor(this.view.simulationRoot.matrixWorld, []) });
  }

  private tell(): void {
    for (const listener of this.listeners) listener();
  }

  private listen(target: Object3D, event: string, listener: (event: { data?: XRInputSource }) => void): void {
    const emitter = target as unknown as { addEventListener: Emit; removeEventListener: Emit };
    emitter.addEventListener(event, listener);
    this.undo.push(() => emitter.removeEventListener(event, listener));
  }
}

type Emit = (event: string, listener: (event: { data?: XRInputSource }) => void) => void;
