/** What `selection.*` keys of the shared state say about how particles are drawn. Their content comes from other people. */

import type { ColorScheme, Representation } from "../contracts.ts";

export interface RenderingHint {
  /** Null: all particles. */
  readonly particles: readonly number[] | null;
  readonly hide: boolean;
  readonly representation: Representation | null;
  /** A scheme, a colour (0xRRGGBB), or null: as the rest. */
  readonly color: ColorScheme | number | null;
}

const PRESETS: Readonly<Record<string, Representation>> = {
  "ball and stick": "ball and stick",
  hyperballs: "ball and stick",
  liquorice: "liquorice",
  noodles: "liquorice",
  cycles: "liquorice",
  goodsell: "spheres",
  spheres: "spheres",
  spline: "ribbon",
  "geometric spline": "ribbon",
  cartoon: "ribbon",
  ribbon: "ribbon",
  lines: "lines",
  wireframe: "lines",
};

const SCHEMES: Readonly<Record<string, ColorScheme>> = {
  cpk: "element",
  element: "element",
  narupa: "element",
  "narupa element": "element",
  nanover: "element",
  residue: "residue",
  "residue name": "residue",
  "residue index": "residue",
  chain: "chain",
  uniform: "uniform",
};

const ROOT = "selection.root";

/** The hints of all selections, in the order in which they are laid over each other: the root first, then by key. */
export function renderingHints(state: ReadonlyMap<string, unknown>): RenderingHint[] {
  const keys = [...state.keys()].filter((key) => key.startsWith("selection."));
  keys.sort((one, other) => Number(other === ROOT) - Number(one === ROOT) || (one < other ? -1 : 1));
  const hints: RenderingHint[] = [];
  for (const key of keys) {
    const hint = renderingHint(state.get(key));
    if (hint) hints.push(hint);
  }
  return hints;
}

/** Whether the selections are other objects than those in `known`, which holds them afterwards. */
export function selectionsChanged(state: ReadonlyMap<string, unknown>, known: Map<string, unknown>): boolean {
  let changed = false;
  let count = 0;
  for (const [key, value] of state) {
    if (!key.startsWith("selection.")) continue;
    count++;
    if (known.get(key) !== value || !known.has(key)) {
      known.set(key, value);
      changed = true;
    }
  }
  if (count !== known.size) {
    for (const key of known.keys()) if (!state.has(key)) known.delete(key);
    changed = true;
  }
  return changed;
}

function renderingHint(selection: unknown): RenderingHint | null {
  if (!isRecord(selection) || !isRecord(selection["properties"])) return null;
  const properties = selection["properties"];
  const hide = property(properties, "rendering.hide") === true;
  const renderer = property(properties, "rendering.renderer");
  let representation: Representation | null = null;
  let color: ColorScheme | number | null = null;
  if (typeof renderer === "string") {
    representation = presetOf(renderer);
  } else if (isRecord(renderer)) {
    const render = isRecord(renderer["render"]) ? renderer["render"]["type"] : renderer["render"];
    representation = typeof render === "string" ? presetOf(render) : null;
    color = colorOf(isRecord(renderer["color"]) ? renderer["color"]["type"] : renderer["color"]);
  }
  if (!hide && representation === null && color === null) return null;
  return { particles: particlesOf(selection), hide, representation, color };
}

function presetOf(name: string): Representation | null {
  return own(PRESETS, name.trim().toLowerCase()) ?? null;
}

function colorOf(value: unknown): ColorScheme | number | null {
  if (typeof value === "string") {
    const scheme = own(SCHEMES, value.trim().toLowerCase());
    if (scheme) return scheme;
    return /^#?[0-9a-f]{6}$/i.test(value) ? Number.parseInt(value.replace("#", ""), 16) : null;
  }
  if (Array.isArray(value) && value.length >= 3 && value.slice(0, 3).every(Number.isFinite)) {
    const [red, green, blue] = value.map((part) => Math.round(Math.min(Math.max(Number(part), 0), 1) * 255));
    return (red! << 16) | (green! << 8) | blue!;
  }
  return null;
}

function particlesOf(selection: Record<string, unknown>): readonly number[] | null {
  const selected = isRecord(selection["selected"]) ? selection["selected"]["particle_ids"] : null;
  return Array.isArray(selected) ? selected.filter((id) => Number.isSafeInteger(id) && id >= 0) : null;
}

function property(properties: Record<string, unknown>, name: string): unknown {
  return properties[`narupa.${name}`] ?? properties[`nanover.${name}`];
}

function own<Value>(table: Readonly<Record<string, Value>>, key: string): Value | undefined {
  return Object.hasOwn(table, key) ? table[key] : undefined;
}

function isRecord(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value);
}
