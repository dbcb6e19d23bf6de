/** What others say of themselves: name, color, head and hands. All of it comes from outside. */

const KEY_PREFIX = "avatar.";
const MAX_NAME = 32;
const MAX_COORDINATE = 1e5;

/** Which parts of a person are drawn, in the order of `Avatar.parts`. */
export const PARTS = ["headset", "hand.left", "hand.right"] as const;

export interface Part {
  readonly position: readonly [number, number, number];
  /** x, y, z, w. */
  readonly rotation: readonly [number, number, number, number];
}

export interface Avatar {
  readonly id: string;
  readonly name: string;
  /** Red, green and blue, 0 to 1. */
  readonly color: readonly [number, number, number];
  /** Server space, as `PARTS`; null for what is not tracked. */
  readonly parts: readonly (Part | null)[];
}

const GREY = [0.6, 0.6, 0.6] as const;

/** The avatar that a key of the state and its value describe; null where they describe none. */
export function avatarOf(key: string, value: unknown): Avatar | null {
  if (!key.startsWith(KEY_PREFIX) || typeof value !== "object" || value === null || Array.isArray(value)) return null;
  const { name, color, components } = value as Record<string, unknown>;
  const listed: readonly unknown[] = Array.isArray(components) ? components : [];
  return {
    id: key.slice(KEY_PREFIX.length),
    name: nameOf(name),
    color: isNumbers(color, 3) ? [share(color[0]!), share(color[1]!), share(color[2]!)] : GREY,
    parts: PARTS.map((part) => partOf(listed.find((one) => isMap(one) && one["name"] === part))),
  };
}

/** A name for drawing: one line, and not too long. */
export function nameOf(name: unknown): string {
  if (typeof name !== "string") return "";
  const line = name.slice(0, 4 * MAX_NAME).replace(/[\p{C}\p{Z}]+/gu, " ").trim();
  const letters = [...line];
  return letters.length > MAX_NAME ? `${letters.slice(0, MAX_NAME - 1).join("")}…` : line;
}

function partOf(component: unknown): Part | null {
  if (!isMap(component)) return null;
  const { position, rotation } = component;
  if (!isNumbers(position, 3)) return null;
  const turn = isNumbers(rotation, 4) && Math.hypot(rotation[0]!, rotation[1]!, rotation[2]!, rotation[3]!) > 1e-6 ? rotation : [0, 0, 0, 1];
  return {
    position: [position[0]!, position[1]!, position[2]!],
    rotation: [turn[0]!, turn[1]!, turn[2]!, turn[3]!],
  };
}

function isMap(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}

function isNumbers(value: unknown, count: number): value is number[] {
  if (!Array.isArray(value) || value.length < count) return false;
  return value.every((one) => typeof one === "number" && Math.abs(one) < MAX_COORDINATE);
}

function share(value: number): number {
  return Math.min(1, Math.max(0, value));
}
