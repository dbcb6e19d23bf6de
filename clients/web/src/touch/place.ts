/** Where the box is in the room: before whoever puts a headset on, carried by hands, and told to the others where that is wanted. */

import { Euler, Matrix4, Quaternion, Vector3 } from "three";
import type { SceneView, Session } from "../contracts.ts";
import type { Hand } from "./hand.ts";
import { extentOf, type Extent } from "./nearest.ts";
import { RateLimit } from "./rate.ts";
import { Spaces } from "./spaces.ts";
import { oneHandTransform, twoHandTransform } from "./two-hands.ts";

/** The middle of the box is so far before the eyes, and so far below them: to be reached sitting and standing, metres. */
const AHEAD = 0.95;
const BELOW = 0.3;
/** Half of its longest side, metres; small molecules are not made larger than so many metres for a nanometre. */
const RADIUS = 0.5;
const LARGEST_NM = 0.6;
/** How small and how large a nanometre can be made, metres. */
const MIN_SCALE = 0.005;
const MAX_SCALE = 10;
const PLACES_PER_SECOND = 10;
/** How long others' answer to a shared place is waited for, ms. */
const ECHO_MS = 1000;
/** On a screen the box turns to where up is in about this time, ms. */
const TURN_MS = 80;

const UP = new Vector3(0, 1, 0);

export class Place {
  /** Whether others see the box moved as it is moved here. */
  shared = false;
  /** Between server space and the world when the box was last taken. */
  private readonly taken = new Spaces();
  private readonly rate = new RateLimit(PLACES_PER_SECOND);
  private toldUntil = Number.NEGATIVE_INFINITY;
  private due = false;
  private carriers: readonly Hand[] = [];
  private readonly starts = [new Matrix4(), new Matrix4()];
  private readonly rootStart = new Matrix4();

  private kept: { readonly position: Vector3; readonly quaternion: Quaternion; readonly scale: Vector3 } | null = null;
  private scene: unknown = undefined;
  private standing = true;
  private readonly upright = new Quaternion();
  private centre: Extent["centre"] = [0, 0, 0];

  private readonly inverse = new Matrix4();
  private readonly matrix = new Matrix4();
  private readonly a0 = new Vector3();
  private readonly b0 = new Vector3();
  private readonly a1 = new Vector3();
  private readonly b1 = new Vector3();
  private readonly scratch = new Quaternion();

  constructor(
    private readonly session: Session,
    private readonly view: SceneView,
  ) {}

  /** Whether the place of the box is ahead of what the session has heard of it. */
  ahead(nowMs: number): boolean {
    return this.due || nowMs < this.toldUntil;
  }

  /**
   * On a screen: the box is turned, about its middle, so that those who stand upright in the room do so in the picture, however
   * the box has been turned there. To be called once per animation frame.
   */
  stand(elapsedMs: number): void {
    const scene = this.session.state.get("scene");
    if (scene !== this.scene) {
      this.scene = scene;
      this.taken.setScene(scene);
      this.taken.uprightRoot(this.upright);
      this.centre = extentOf(this.session.frame).centre;
      this.standing = false;
    }
    if (this.standing) return;
    const { quaternion } = this.view.simulationRoot;
    this.standing = quaternion.angleTo(this.upright) < 0.01;
    const share = this.session.frame === null ? 1 : 1 - Math.exp(-Math.max(0, elapsedMs) / TURN_MS);
    this.scratch.copy(quaternion).slerp(this.upright, this.standing ? 1 : share);
    this.turnTo(this.scratch);
  }

  /** The box is before those eyes, in a size to work with, turned so that others in headsets stand upright beside it. */
  bring(head: Matrix4): void {
    const { simulationRoot } = this.view;
    this.kept ??= { position: simulationRoot.position.clone(), quaternion: simulationRoot.quaternion.clone(), scale: simulationRoot.scale.clone() };
    const { centre, radius } = extentOf(this.session.frame);
    const yaw = yawOf(head);
    const scale = Math.min(LARGEST_NM, RADIUS / radius);
    this.taken.setScene(this.session.state.get("scene"));
    this.taken.uprightRoot(simulationRoot.quaternion).premultiply(this.scratch.setFromAxisAngle(UP, yaw));
    simulationRoot.scale.setScalar(scale);
    this.a0.fromArray(centre).multiplyScalar(scale).applyQuaternion(simulationRoot.quaternion);
    this.a1.setFromMatrixPosition(head);
    simulationRoot.position.set(this.a1.x - AHEAD * Math.sin(yaw), this.a1.y - BELOW, this.a1.z - AHEAD * Math.cos(yaw)).sub(this.a0);
    simulationRoot.updateWorldMatrix(true, true);
  }

  /** The box is where it was before it was brought into a room. */
  restore(): void {
    this.carriers = [];
    this.due = false;
    if (this.kept === null) return;
    const { simulationRoot } = this.view;
    simulationRoot.position.copy(this.kept.position);
    simulationRoot.quaternion.copy(this.kept.quaternion);
    simulationRoot.scale.copy(this.kept.scale);
    simulationRoot.updateWorldMatrix(true, true);
    this.kept = null;
    this.scene = null; // whatever it was before, it may be another by now
  }

  /** From now on these hands have the box, one or two of them, or none. */
  carriedBy(hands: readonly Hand[]): void {
    this.carry();
    const took = hands.length > this.carriers.length;
    this.carriers = hands;
    const { simulationRoot } = this.view;
    simulationRoot.updateWorldMatrix(true, false);
    this.rootStart.copy(simulationRoot.matrixWorld);
    for (let i = 0; i < hands.length; i++) this.starts[i]!.copy(hands[i]!.aim.matrixWorld);
    // While it is being moved, what it is moved against is where it was when it was taken first.
    if (!took || this.due) return;
    this.taken.setScene(this.session.state.get("scene"));
    this.taken.setRoot(this.rootStart);
  }

  /** To be called once per animation frame: the box has gone where the hands that have it went. */
  carry(): void {
    const [one, other] = this.carriers;
    if (one === undefined) return;
    if (other === undefined) oneHandTransform(this.starts[0]!, one.aim.matrixWorld, this.matrix);
    else {
      const scale = this.rootStart.getMaxScaleOnAxis();
      twoHandTransform(
        this.a0.setFromMatrixPosition(this.starts[0]!),
        this.b0.setFromMatrixPosition(this.starts[1]!),
        this.a1.setFromMatrixPosition(one.aim.matrixWorld),
        this.b1.setFromMatrixPosition(other.aim.matrixWorld),
        MIN_SCALE / scale,
        MAX_SCALE / scale,
        this.matrix,
      );
    }
    this.matrix.multiply(this.rootStart);
    const { simulationRoot } = this.view;
    if (simulationRoot.parent !== null) this.matrix.premultiply(this.inverse.copy(simulationRoot.parent.matrixWorld).invert());
    this.matrix.decompose(simulationRoot.position, simulationRoot.quaternion, simulationRoot.scale);
    simulationRoot.updateWorldMatrix(true, true);
    if (this.shared) this.due = true;
  }

  /** To be called once per animation frame: others see the box move where that is wanted. */
  tell(nowMs: number): void {
    if (!this.due || !this.rate.take(nowMs)) return;
    if (this.carriers.length === 0) this.due = false;
    this.toldUntil = nowMs + ECHO_MS;
    this.session.write({ scene: this.taken.sceneFor(this.view.simulationRoot.matrixWorld, []) });
  }

  /** The box is turned like that, and its middle stays where it is. */
  private turnTo(quaternion: Quaternion): void {
    const { simulationRoot } = this.view;
    const { position, scale } = simulationRoot;
    position.add(this.a0.fromArray(this.centre).multiply(scale).applyQuaternion(simulationRoot.quaternion));
    simulationRoot.quaternion.copy(quaternion);
    position.sub(this.a0.fromArray(this.centre).multiply(scale).applyQuaternion(quaternion));
    simulationRoot.updateWorldMatrix(true, true);
  }
}

/** Which way somebody looks, about the vertical: 0 along -Z, and growing to the left; also while they look at their feet. */
export function yawOf(head: Matrix4): number {
  return euler.setFromRotationMatrix(head, "YXZ").y;
}

const euler = new Euler();
