/** Our avatar: who we are, and where our head and hands are, written when due. */

import type { AvatarComponent } from "../contracts.ts";

/** Between changes of place, ms. */
export const AVATAR_EVERY_MS = 1000 / 15;
/** Between tries while our writes are refused, ms: a host may let us at any time. */
export const RETRY_MS = 2000;
/** Movements that nobody sees: m, and parts of a rotation. */
const STILL = 1e-3;
/** Refusals in a row that mean that we may only watch; one may be the end of a connection before. */
const REFUSALS = 2;

export class Avatar {
  /** Whether our writes are refused. */
  watching = false;
  #components: readonly AvatarComponent[] = [];
  #changed = true;
  #missing = false;
  #refusals = 0;
  #writtenAt = -Infinity;

  /** Of a new connection nobody has seen us yet. */
  startOver(): void {
    this.#changed = true;
    this.#missing = false;
    this.#refusals = 0;
    this.#writtenAt = -Infinity;
  }

  place(components: readonly AvatarComponent[]): void {
    if (same(this.#components, components)) return;
    this.#components = components;
    this.#changed = true;
  }

  /** Our name or color are others. */
  touch(): void {
    this.#changed = true;
  }

  /** The server told of our avatar: it is there, or it is not, whatever we wrote. True where `watching` changed. */
  told(there: boolean): boolean {
    const before = this.watching;
    this.#missing = !there;
    this.#refusals = there ? 0 : this.#refusals + 1;
    this.watching = there ? false : this.watching || this.#refusals >= REFUSALS;
    return this.watching !== before;
  }

  /** What is to be written now; null for nothing. */
  due(now: number, playerId: string, name: string, color: string): Record<string, unknown> | null {
    const wait = this.#missing || this.watching ? RETRY_MS : AVATAR_EVERY_MS;
    if (!(this.#changed || this.#missing) || now - this.#writtenAt < wait) return null;
    this.#writtenAt = now;
    this.#changed = false;
    return {
      [`avatar.${playerId}`]: {
        playerid: playerId,
        name,
        color: rgba(color),
        components: this.#components.map(({ name, position, rotation }) => ({ name, position: [...position], rotation: [...rotation] })),
      },
    };
  }
}

/** `#rrggbb` as red, green, blue and alpha, 0 to 1; grey where it is none. */
export function rgba(color: string): [number, number, number, number] {
  const match = /^#([0-9a-f]{2})([0-9a-f]{2})([0-9a-f]{2})$/i.exec(color);
  if (match === null) return [0.5, 0.5, 0.5, 1];
  const [red, green, blue] = match.slice(1).map((part) => parseInt(part, 16) / 255) as [number, number, number];
  return [red, green, blue, 1];
}

function same(one: readonly AvatarComponent[], other: readonly AvatarComponent[]): boolean {
  if (one.length !== other.length) return false;
  for (let at = 0; at < one.length; at += 1) {
    const [a, b] = [one[at]!, other[at]!];
    if (a.name !== b.name) return false;
    for (let axis = 0; axis < 3; axis += 1) if (Math.abs(a.position[axis]! - b.position[axis]!) > STILL) return false;
    for (let axis = 0; axis < 4; axis += 1) if (Math.abs(a.rotation[axis]! - b.rotation[axis]!) > STILL) return false;
  }
  return true;
}
