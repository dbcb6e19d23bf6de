/** When the place of the camera is worth telling: it stands still somewhere else than where it is known to be. */

import type { CameraPlace } from "../contracts.ts";

/** Parts of the distance that nobody sees. */
const STILL = 1e-3;

export class CameraNews {
  #known: CameraPlace | null = null;
  #seen: CameraPlace | null = null;

  /** To be called a few times a second. What is to be told; null for nothing. */
  look(place: CameraPlace): CameraPlace | null {
    const still = this.#seen !== null && samePlace(this.#seen, place);
    this.#seen = place;
    if (!still || (this.#known !== null && samePlace(this.#known, place))) return null;
    this.#known = place;
    return place;
  }

  /** It is known to be there, or on its way. */
  know(place: CameraPlace): void {
    this.#known = this.#seen = place;
  }

  /** Whether it is known to be there. */
  knows(place: CameraPlace): boolean {
    return this.#known !== null && samePlace(this.#known, place);
  }
}

export function samePlace(one: CameraPlace, other: CameraPlace): boolean {
  const near = STILL * distance(one.position, one.target);
  return distance(one.position, other.position) <= near && distance(one.target, other.target) <= near;
}

function distance(one: CameraPlace["position"], other: CameraPlace["position"]): number {
  return Math.hypot(one[0] - other[0], one[1] - other[1], one[2] - other[2]);
}

/** A place as somebody else gave it; null where it is none. */
export function placeOf(said: unknown): CameraPlace | null {
  if (typeof said !== "object" || said === null) return null;
  const { position, target } = said as Record<string, unknown>;
  return point(position) && point(target) ? { position, target } : null;
}

function point(said: unknown): said is [number, number, number] {
  return Array.isArray(said) && said.length === 3 && said.every(Number.isFinite);
}
