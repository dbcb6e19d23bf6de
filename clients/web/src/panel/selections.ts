/** Selections of the shared state, as existing clients write them: what they hold, and what is to be changed in them. */

export interface Selection {
  readonly key: string;
  readonly name: string;
  /** Null: everything. */
  readonly particles: readonly number[] | null;
  readonly hidden: boolean;
  /** Name of a renderer; empty where the selection says nothing of it. */
  readonly shape: string;
  /** A colour or the name of a scheme; empty where the selection says nothing of it, or nothing that fits in a word. */
  readonly color: string;
  /** single, group or none: what hands that grab an atom of it grab. */
  readonly grabbed: string;
}

export type Change = Partial<Pick<Selection, "hidden" | "shape" | "color" | "grabbed">>;

const PREFIX = "selection.";
const ROOT = "selection.root";
/** Clients of each family read the properties with their own prefix, so all are written. */
const FAMILIES = ["narupa.", "nanover."] as const;
const [HIDE, RENDERER, METHOD, VELOCITY_RESET] = ["rendering.hide", "rendering.renderer", "interaction.method", "interaction.velocity_reset"];
const LONGEST_NAME = 64;
/** More are not listed. */
const MOST = 100;

/** Every selection there is, that of everything first and then by name. */
export function selectionsOf(state: ReadonlyMap<string, unknown>): Selection[] {
  const found: Selection[] = [];
  for (const [key, value] of state) {
    if (key.startsWith(PREFIX) && isMap(value)) found.push(selectionOf(key, value));
    if (found.length >= MOST) break;
  }
  const first = ({ key }: Selection) => Number(key === ROOT);
  return found.sort((a, b) => first(b) - first(a) || a.name.localeCompare(b.name) || (a.key < b.key ? -1 : 1));
}

/** A selection of these particles that looks like the rest, and is grabbed as a whole by hands. */
export function newSelection(id: string, name: string, particles: readonly number[]): { key: string; value: Record<string, unknown> } {
  const key = PREFIX + id;
  const plain = { id: key, name: name.trim().slice(0, LONGEST_NAME), selected: { particle_ids: [...particles] }, properties: {} };
  return { key, value: withProperties(plain, { [METHOD!]: "group", [VELOCITY_RESET!]: false, [HIDE!]: false }) };
}

/** The selection's value with the change made, and everything else that it says left as it was. */
export function changed(value: unknown, change: Change): Record<string, unknown> {
  const before = isMap(value) ? value : {};
  const now: Record<string, unknown> = {};
  if (change.hidden !== undefined) now[HIDE!] = change.hidden;
  if (change.grabbed !== undefined) now[METHOD!] = change.grabbed;
  if (change.shape !== undefined || change.color !== undefined) now[RENDERER!] = rendererOf(propertyOf(before, RENDERER!), change);
  return withProperties(before, now);
}

/** "Selection 1", or the next number that is not taken. */
export function freeName(selections: readonly Selection[]): string {
  const taken = new Set(selections.map(({ name }) => name));
  let number = 1;
  while (taken.has(`Selection ${number}`)) number += 1;
  return `Selection ${number}`;
}

function selectionOf(key: string, value: Record<string, unknown>): Selection {
  const selected = isMap(value["selected"]) ? value["selected"]["particle_ids"] : null;
  const renderer = propertyOf(value, RENDERER!);
  const method = propertyOf(value, METHOD!);
  const name = typeof value["name"] === "string" ? value["name"].trim().slice(0, LONGEST_NAME) : "";
  return {
    key,
    name: name || (key === ROOT ? "Everything" : "Without a name"),
    particles: Array.isArray(selected) ? selected.filter((one) => Number.isSafeInteger(one) && one >= 0) : null,
    hidden: propertyOf(value, HIDE!) === true,
    shape: shapeOf(renderer),
    color: isMap(renderer) ? textOf(renderer["color"]) : "",
    grabbed: typeof method === "string" ? method : "single",
  };
}

function rendererOf(renderer: unknown, { shape = shapeOf(renderer), color }: Change): unknown {
  const { render: _, color: before, ...rest } = isMap(renderer) ? renderer : {};
  const painted = color ?? before;
  const whole = { ...(shape === "" ? {} : { render: shape }), ...(painted ? { color: painted } : {}), ...rest };
  const names = Object.keys(whole);
  if (names.length === 0) return undefined;
  return names.length === 1 && shape !== "" ? shape : whole;
}

function shapeOf(renderer: unknown): string {
  if (!isMap(renderer)) return textOf(renderer);
  return textOf(isMap(renderer["render"]) ? renderer["render"]["type"] : renderer["render"]);
}

/** With these properties for every family of clients; those that are undefined are taken away. */
function withProperties(value: Record<string, unknown>, properties: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const all: Record<string, unknown> = { ...(isMap(value["properties"]) ? value["properties"] : {}) };
  for (const [name, property] of Object.entries(properties)) {
    for (const family of FAMILIES) {
      if (property === undefined) delete all[family + name];
      else all[family + name] = property;
    }
  }
  return { ...value, properties: all };
}

function propertyOf(value: Record<string, unknown>, name: string): unknown {
  const properties = isMap(value["properties"]) ? value["properties"] : {};
  for (const family of FAMILIES) if (properties[family + name] !== undefined) return properties[family + name];
  return undefined;
}

function textOf(item: unknown): string {
  return typeof item === "string" ? item : "";
}

function isMap(item: unknown): item is Record<string, unknown> {
  return typeof item === "object" && item !== null && !Array.isArray(item);
}
