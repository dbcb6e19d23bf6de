/** Who is here, as the shared state tells. */

export interface Person {
  readonly id: string;
  readonly name: string;
  /** For CSS. */
  readonly color: string;
  readonly self: boolean;
  /** Whether they have a headset on, or hands that are tracked. */
  readonly immersed: boolean;
  /** How many pulls of theirs act. */
  readonly pulls: number;
}

const AVATAR = "avatar.";
const INTERACTION = "interaction.";

/** Everybody with an avatar: us first, the others by name. */
export function peopleOf(state: ReadonlyMap<string, unknown>, playerId: string): Person[] {
  const pulls = new Map<string, number>();
  for (const [key, value] of state) {
    if (!key.startsWith(INTERACTION)) continue;
    const owner = field(value, "owner.id");
    if (typeof owner === "string") pulls.set(owner, (pulls.get(owner) ?? 0) + 1);
  }
  const people: Person[] = [];
  for (const [key, value] of state) {
    if (!key.startsWith(AVATAR)) continue;
    const id = key.slice(AVATAR.length);
    const name = field(value, "name");
    people.push({
      id,
      name: typeof name === "string" && name.trim() !== "" ? name.trim().slice(0, 64) : "Somebody",
      color: cssColor(field(value, "color")),
      self: id === playerId,
      immersed: hands(field(value, "components")),
      pulls: pulls.get(id) ?? 0,
    });
  }
  return people.sort((a, b) => Number(b.self) - Number(a.self) || a.name.localeCompare(b.name) || (a.id < b.id ? -1 : 1));
}

/** Red, green, blue (and alpha), 0 to 1, for CSS; grey where it is no color. */
export function cssColor(color: unknown): string {
  if (!Array.isArray(color) || color.length < 3) return "rgb(128 128 128)";
  const parts = color.slice(0, 3).map((part) => (typeof part === "number" && !Number.isNaN(part) ? Math.round(255 * Math.min(1, Math.max(0, part))) : 128));
  return `rgb(${parts.join(" ")})`;
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function hands(components: unknown): boolean {
  return Array.isArray(components) && components.some((each) => String(field(each, "name")).startsWith("hand."));
}
