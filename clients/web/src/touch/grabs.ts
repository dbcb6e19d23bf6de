/**
 * What we hold. Mouse, pen, fingers, hands and keyboard all grab, move and let go through here, each under a name of its own; what
 * they hold is a key of the shared state that is written once per animation frame at most, and gone when they let go.
 */

import type { PullSettings, Session } from "../contracts.ts";
import { set, type Point, type ReadonlyPoint } from "./drag.ts";
import type { Target } from "./targets.ts";

export const KEY_PREFIX = "interaction.";
export const MAX_FORCE = 20_000;
export const REFUSED_AFTER_MS = 1500;

/** Large groups are written less often, for each write names all of them: so many ms for each particle. */
const WRITE_EVERY_MS_PER_PARTICLE = 0.01;

const WATCHING = "You may only watch here. A host of the session can let you take part.";
const NEVER_ARRIVED = "The session did not take your pull: you may only be allowed to watch here. A host can let you take part.";
const TAKEN_AWAY = "The session ended your pull.";

export interface Grab {
  /** Of the interaction, without the key's prefix. */
  readonly id: string;
  readonly particles: readonly number[];
  /** Simulation space, nm. */
  readonly handle: ReadonlyPoint;
  readonly law: PullSettings["law"];
}

interface Held extends Grab {
  readonly handle: Point;
  readonly resetVelocities: boolean;
  dirty: boolean;
  /** When it was first written; null before. */
  writtenAt: number | null;
  nextWriteAt: number;
  arrived: boolean;
  /** The settings that it was last written with. */
  law: PullSettings["law"];
  scale: number;
  reset: boolean;
}

export interface GrabOptions {
  /** Unique ids for interactions. */
  readonly newId: () => string;
  /** A sentence for a person: what they did had no effect. */
  readonly onRefused: (sentence: string) => void;
  /** What is held is another, or held elsewhere. */
  readonly onChange: () => void;
}

export class Grabs {
  private readonly held = new Map<string, Held>();
  /** Let go of, and not yet gone from the state: until when they may still be there. */
  private readonly released = new Map<string, number>();

  constructor(
    private readonly session: Session,
    private readonly settings: () => Readonly<PullSettings>,
    private readonly options: GrabOptions,
  ) {}

  get size(): number {
    return this.held.size;
  }

  of(pointer: string): Grab | null {
    return this.held.get(pointer) ?? null;
  }

  /** All that is held, in the order in which it was grabbed. */
  values(): IterableIterator<Grab> {
    return this.held.values();
  }

  /** Whether an interaction of the state is one that we have already let go of. */
  isReleased(id: string): boolean {
    return this.released.has(id);
  }

  /**
   * The pointer holds the target, and nothing else.
   *
   * @param delayMs Nothing is written before; a tap that becomes a pinch leaves no trace.
   * @returns Whether it does: not where there is nothing to hold, or we may not.
   */
  begin(pointer: string, target: Target, handle: ReadonlyPoint, nowMs: number, delayMs = 0): boolean {
    this.end(pointer);
    if (target.particles.length === 0 || this.session.status.kind !== "open") return false;
    if (this.session.watching) {
      this.options.onRefused(WATCHING);
      return false;
    }
    const { law, scale, resetVelocities } = this.settings();
    this.held.set(pointer, {
      id: this.options.newId(),
      particles: [...target.particles],
      handle: [handle[0], handle[1], handle[2]],
      resetVelocities: target.resetVelocities,
      dirty: true,
      writtenAt: null,
      nextWriteAt: nowMs + delayMs,
      arrived: false,
      law,
      scale,
      reset: resetVelocities,
    });
    this.options.onChange();
    return true;
  }

  /** What the pointer holds, if anything, is pulled to there. */
  move(pointer: string, handle: ReadonlyPoint): void {
    const held = this.held.get(pointer);
    if (held === undefined || !isFinitePoint(handle)) return;
    const { handle: old } = held;
    if (old[0] === handle[0] && old[1] === handle[1] && old[2] === handle[2]) return;
    set(old, handle[0], handle[1], handle[2]);
    held.dirty = true;
  }

  /** The pointer holds nothing. */
  end(pointer: string, nowMs: number = performance.now()): void {
    const held = this.held.get(pointer);
    if (held === undefined) return;
    this.held.delete(pointer);
    if (held.writtenAt !== null) {
      this.released.set(held.id, nowMs + REFUSED_AFTER_MS);
      this.session.write({}, [KEY_PREFIX + held.id]);
    }
    this.options.onChange();
  }

  endAll(): void {
    for (const pointer of [...this.held.keys()]) this.end(pointer);
  }

  /** To be called once per animation frame: what has changed is written, all at once. */
  tick(nowMs: number): void {
    if (this.released.size > 0) this.checkReleased(nowMs);
    if (this.held.size === 0) return;
    const { law, scale, resetVelocities } = this.settings();
    let updates: Record<string, unknown> | null = null;
    for (const held of this.held.values()) {
      if (held.law !== law || held.scale !== scale || held.reset !== resetVelocities) {
        held.law = law;
        held.scale = scale;
        held.reset = resetVelocities;
        held.dirty = true;
      }
      if (!held.dirty || nowMs < held.nextWriteAt) continue;
      held.dirty = false;
      held.nextWriteAt = nowMs + held.particles.length * WRITE_EVERY_MS_PER_PARTICLE;
      held.writtenAt ??= nowMs;
      updates ??= {};
      updates[KEY_PREFIX + held.id] = this.value(held);
    }
    if (updates !== null) {
      this.session.write(updates);
      this.options.onChange();
    }
    this.checkArrival(nowMs);
  }

  /** To be called when the state is another: what the session has taken away is no longer held. */
  onState(): void {
    if (this.session.status.kind !== "open") return;
    for (const [pointer, held] of this.held) {
      const there = this.session.state.has(KEY_PREFIX + held.id);
      if (there) held.arrived = true;
      else if (held.arrived) this.drop(pointer, TAKEN_AWAY);
    }
    for (const id of this.released.keys()) if (!this.session.state.has(KEY_PREFIX + id)) this.released.delete(id);
  }

  private checkArrival(nowMs: number): void {
    for (const [pointer, held] of this.held) {
      if (held.arrived || held.writtenAt === null || nowMs - held.writtenAt < REFUSED_AFTER_MS) continue;
      this.drop(pointer, this.session.watching ? WATCHING : NEVER_ARRIVED);
    }
  }

  /** A removal that was overtaken or lost is sent again. */
  private checkReleased(nowMs: number): void {
    for (const [id, due] of this.released) {
      if (nowMs < due) continue;
      if (this.session.status.kind === "open" && this.session.state.has(KEY_PREFIX + id)) {
        this.released.set(id, nowMs + REFUSED_AFTER_MS);
        this.session.write({}, [KEY_PREFIX + id]);
      } else this.released.delete(id);
    }
  }

  private drop(pointer: string, sentence: string): void {
    this.end(pointer);
    this.options.onRefused(sentence);
  }

  private value(held: Held): Record<string, unknown> {
    return {
      position: [held.handle[0], held.handle[1], held.handle[2]],
      particles: held.particles,
      interaction_type: held.law,
      scale: held.scale,
      mass_weighted: true,
      reset_velocities: held.reset || held.resetVelocities,
      max_force: MAX_FORCE,
      "owner.id": this.session.playerId,
      label: this.session.name,
    };
  }
}

/** A version 4 UUID. `crypto.randomUUID` would do, but is missing from pages that came without TLS. */
export function randomId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  bytes[6] = (bytes[6]! & 0x0f) | 0x40;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  const hex = Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
  return `${hex.slice(0, 8)}-${hex.slice(8, 12)}-${hex.slice(12, 16)}-${hex.slice(16, 20)}-${hex.slice(20)}`;
}

function isFinitePoint(point: ReadonlyPoint): boolean {
  return Number.isFinite(point[0]) && Number.isFinite(point[1]) && Number.isFinite(point[2]);
}
