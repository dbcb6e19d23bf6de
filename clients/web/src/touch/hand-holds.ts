/** What hands find, hold and pull along: close to them, or where they point. */

import { Matrix4, Vector3 } from "three";
import type { PullSettings, SceneView, Session } from "../contracts.ts";
import { centreOf } from "./centre.ts";
import type { Point, ReadonlyPoint } from "./drag.ts";
import type { Grabs } from "./grabs.ts";
import type { Hand } from "./hand.ts";
import { nearestParticle } from "./nearest.ts";
import { targetOf } from "./targets.ts";

/** What is this close to a hand is grabbed, metres; beyond, what its ray meets within the slack. */
const NEAR = 0.06;
const RAY_SLACK = 0.02;

export class HandHolds {
  private readonly inverse = new Matrix4();
  private readonly vector = new Vector3();
  private readonly other = new Vector3();
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
    /** What the hands would grab, or hold, is another. */
    private readonly onChange: () => void,
  ) {}

  /** The particle that the hand would grab; -1 for none. */
  find(hand: Hand): number {
    const { frame } = this.session;
    if (frame === null) return -1;
    const nmPerMetre = 1 / this.root().getMaxScaleOnAxis();
    this.vector.setFromMatrixPosition(hand.aim.matrixWorld).applyMatrix4(this.inverse).toArray(this.point);
    const near = nearestParticle(frame, this.point, NEAR * nmPerMetre);
    if (near >= 0) return near;
    this.vector.set(0, 0, -1).transformDirection(hand.aim.matrixWorld).transformDirection(this.inverse).toArray(this.aim);
    return this.view.pick(this.sight, RAY_SLACK * nmPerMetre)?.particle ?? -1;
  }

  /** The hand holds that particle, or what it stands for. */
  begin(hand: Hand, particle: number): void {
    const { frame, state } = this.session;
    if (frame === null) return;
    const target = targetOf(particle, frame, state, this.settings().target);
    if (!centreOf(target.particles, frame, this.positionOf, this.centre)) return;
    if (!this.grabs.begin(hand.pointer, target, this.centre, performance.now())) return;
    this.vector.fromArray(this.centre).applyMatrix4(this.root());
    hand.held.copy(this.vector).applyMatrix4(this.inverse.copy(hand.aim.matrixWorld).invert());
    hand.hovered = -1;
    hand.pulse(0.7, 40);
    this.onChange();
  }

  /** What the hand holds is pulled to where the hand is; returns whether it holds anything. */
  move(hand: Hand): boolean {
    if (this.grabs.of(hand.pointer) === null) return false;
    this.root();
    this.vector.copy(hand.held).applyMatrix4(hand.aim.matrixWorld).applyMatrix4(this.inverse).toArray(this.point);
    this.grabs.move(hand.pointer, this.point);
    return true;
  }

  end(hand: Hand): void {
    if (this.grabs.of(hand.pointer) === null) return;
    this.grabs.end(hand.pointer);
    hand.pulse(0.3, 20);
    this.onChange();
  }

  /** Shows what the hand would grab. */
  look(hand: Hand): void {
    const found = hand.source === null ? -1 : this.find(hand);
    if (found >= 0) {
      this.vector.fromArray(this.view.positionOf(found, this.point)).applyMatrix4(this.root());
      hand.reach(this.vector.distanceTo(this.other.setFromMatrixPosition(hand.aim.matrixWorld)));
    } else hand.reach();
    if (found >= 0 && found !== hand.hovered) hand.pulse(0.1, 8);
    this.hover(hand, found);
  }

  hover(hand: Hand, particle: number): void {
    if (particle === hand.hovered) return;
    hand.hovered = particle;
    this.onChange();
  }

  /** Where the simulation is in the world; `inverse` is its inverse from then on. */
  private root(): Matrix4 {
    const { simulationRoot } = this.view;
    simulationRoot.updateWorldMatrix(true, false);
    this.inverse.copy(simulationRoot.matrixWorld).invert();
    return simulationRoot.matrixWorld;
  }
}
