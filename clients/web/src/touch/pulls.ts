/** Everybody's pulls, as they are to be drawn: those in the shared state, and our own before they are there. */

import type { ActivePull, Frame, Session } from "../contracts.ts";
import { nameOf } from "./avatars.ts";
import { centreOf, shorten, type PositionOf } from "./centre.ts";
import { distance, set, type Point } from "./drag.ts";
import { KEY_PREFIX, type Grab, type Grabs } from "./grabs.ts";
import { MAX_PARTICLES } from "./targets.ts";

/** More are not drawn. */
export const MAX_PULLS = 64;
/** Others' handles glide to where they are told to be in about this time, ms. */
const GLIDE_MS = 50;
/** Handles this far away, nm, are nonsense or none of this system. */
const MAX_COORDINATE = 1e5;

export class Pull implements ActivePull {
  particles: readonly number[] = [];
  /** Where the handle is shown. */
  readonly handle: Point = [0, 0, 0];
  /** Where it was last told to be. */
  readonly told: Point = [0, 0, 0];
  own = false;
  owner = "";
  label = "";
  law = "";
  /** The centre of the particles as drawn; right only while `shown`. */
  readonly centre: Point = [0, 0, 0];
  /** Where the handle is drawn: in a periodic box, the image of it that is nearest to the centre, which is where the force points. */
  readonly tip: Point = [0, 0, 0];
  /** Whether there is something to draw. */
  shown = false;
  /** The sum of the forces that the frame reports on its particles, kJ/(mol nm). */
  readonly force: Point = [0, 0, 0];
  /** What it was read from, to know whether it must be read again. */
  source: unknown = undefined;
  generation = 0;
  fresh = true;

  constructor(readonly id: string) {}
}

export class Pulls {
  /** In the order in which they appeared. */
  list: readonly Pull[] = [];
  private readonly byId = new Map<string, Pull>();
  private generation = 0;
  private frameSerial = -1;
  private slots = new Int32Array(0);

  constructor(
    private readonly session: Session,
    private readonly grabs: Grabs,
  ) {}

  /** To be called when the state is another, or what we hold. Returns whether there are other pulls than before. */
  refresh(): boolean {
    this.generation += 1;
    let changed = false;
    for (const grab of this.grabs.values()) changed = this.readGrab(grab) || changed;
    for (const [key, value] of this.session.state) {
      if (key.startsWith(KEY_PREFIX)) changed = this.read(key.slice(KEY_PREFIX.length), value) || changed;
    }
    for (const pull of this.byId.values()) {
      if (pull.generation === this.generation) continue;
      this.byId.delete(pull.id);
      changed = true;
    }
    if (changed) {
      this.list = [...this.byId.values()];
      this.frameSerial = -1;
    }
    return changed;
  }

  /** To be called once per animation frame: handles glide, and centres follow the particles. */
  tick(elapsedMs: number, frame: Frame | null, positionOf: PositionOf): void {
    if (this.list.length === 0) return;
    if (frame !== null && frame.serial !== this.frameSerial) this.readForces(frame);
    const share = 1 - Math.exp(-Math.max(0, elapsedMs) / GLIDE_MS);
    for (const pull of this.list) {
      const { handle, told } = pull;
      const jump = pull.own || pull.fresh || !(distance(handle, told) < MAX_COORDINATE);
      pull.fresh = false;
      for (let axis = 0; axis < 3; axis++) handle[axis] = jump ? told[axis]! : handle[axis]! + (told[axis]! - handle[axis]!) * share;
      pull.shown = frame !== null && centreOf(pull.particles, frame, positionOf, pull.centre);
      if (pull.shown) nearestImage(handle, pull.centre, frame?.box ?? null, pull.tip);
    }
  }

  private readGrab(grab: Grab): boolean {
    const pull = this.pullOf(grab.id);
    if (pull === null) return false;
    const changed = pull.generation === 0;
    pull.generation = this.generation;
    pull.own = true;
    pull.owner = this.session.playerId;
    pull.label = this.session.name;
    pull.law = grab.law;
    pull.particles = grab.particles;
    set(pull.told, grab.handle[0], grab.handle[1], grab.handle[2]);
    return changed;
  }

  private read(id: string, value: unknown): boolean {
    if (this.grabs.isReleased(id)) return false;
    const known = this.byId.get(id);
    // What we hold is where we hold it, which the state will say a little later.
    if (known?.own === true && known.generation === this.generation) return false;
    if (known !== undefined && known.source === value) {
      known.generation = this.generation;
      return false;
    }
    const position = read(value, "position");
    const particles = read(value, "particles");
    if (!isPoint(position) || !isIndices(particles)) return false;
    const pull = this.pullOf(id);
    if (pull === null) return false;
    const changed = pull.generation === 0 || !sameItems(pull.particles, particles);
    if (changed) pull.particles = [...particles];
    pull.generation = this.generation;
    pull.source = value;
    pull.own = false;
    pull.owner = textOf(value, "owner.id");
    pull.label = nameOf(read(value, "label"));
    pull.law = textOf(value, "interaction_type");
    set(pull.told, position[0], position[1], position[2]);
    return changed;
  }

  private pullOf(id: string): Pull | null {
    let pull = this.byId.get(id);
    if (pull !== undefined) return pull;
    if (this.byId.size >= MAX_PULLS) return null;
    pull = new Pull(id);
    this.byId.set(id, pull);
    return pull;
  }

  /** Sums up the reported forces of each pull's particles. */
  private readForces(frame: Frame): void {
    this.frameSerial = frame.serial;
    const { userForceIndices: indices, userForces: forces, particleCount } = frame;
    if (this.slots.length < particleCount) this.slots = new Int32Array(particleCount);
    const { slots } = this;
    const count = Math.min(indices.length, Math.floor(forces.length / 3));
    for (let i = 0; i < count; i++) if (indices[i]! < particleCount) slots[indices[i]!] = i + 1;
    for (const { particles, force } of this.list) {
      set(force, 0, 0, 0);
      for (const particle of particles) {
        const slot = particle < particleCount ? slots[particle] : 0;
        if (!slot) continue;
        for (let axis = 0; axis < 3; axis++) force[axis] = force[axis]! + forces[(slot - 1) * 3 + axis]!;
      }
    }
    for (let i = 0; i < count; i++) if (indices[i]! < particleCount) slots[indices[i]!] = 0;
  }
}

/** Writes to `out` the periodic image of `point` that is nearest to `centre`; the point itself without a box. */
function nearestImage(point: Point, centre: Point, box: Float32Array | null, out: Point): void {
  set(out, point[0] - centre[0], point[1] - centre[1], point[2] - centre[2]);
  if (box !== null) shorten(out, box);
  set(out, out[0] + centre[0], out[1] + centre[1], out[2] + centre[2]);
}

function read(value: unknown, name: string): unknown {
  if (typeof value !== "object" || value === null || !Object.hasOwn(value, name)) return undefined;
  return (value as Record<string, unknown>)[name];
}

function textOf(value: unknown, name: string): string {
  const text = read(value, name);
  return typeof text === "string" ? text : "";
}

function isPoint(value: unknown): value is Point {
  if (!Array.isArray(value) || value.length !== 3) return false;
  return value.every((one) => typeof one === "number" && Math.abs(one) < MAX_COORDINATE);
}

function isIndices(value: unknown): value is number[] {
  if (!Array.isArray(value) || value.length === 0 || value.length > MAX_PARTICLES) return false;
  return value.every((one) => Number.isInteger(one) && (one as number) >= 0);
}

function sameItems(one: readonly number[], other: readonly number[]): boolean {
  if (one.length !== other.length) return false;
  for (let i = 0; i < one.length; i++) if (one[i] !== other[i]) return false;
  return true;
}
