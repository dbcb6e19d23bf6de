/** Who is here, as the shared state and the server tell. */

import { NOBODY, type Role, type Roll } from "../session/roster.ts";

export interface Person {
  /** Of their avatar; empty for whoever has none. */
  readonly id: string;
  /** Of the user that they are; empty where it is not known. */
  readonly userId: string;
  readonly name: string;
  /** For CSS. */
  readonly color: string;
  readonly self: boolean;
  /** What they may; null where it is not known. */
  readonly role: Role | null;
  /** Whether they have a headset on, or hands that are tracked. */
  readonly immersed: boolean;
  /** How many pulls of theirs act. */
  readonly pulls: number;
}

const AVATAR = "avatar.";
const INTERACTION = "interaction.";
const NO_COLOR = "rgb(128 128 128)";

/** Everybody with an avatar, and every other user of the session: us first, then by name. */
export function peopleOf(state: ReadonlyMap<string, unknown>, playerId: string, roll: Roll = NOBODY): Person[] {
  const pulls = pullsOf(state);
  const avatars = withAvatars(state, playerId);
  const owners = ownersOf(avatars, playerId, roll);
  const users = new Map(roll.users.map((user) => [user.id, user]));
  const people = avatars.map((person) => {
    const userId = owners.get(person.id) ?? "";
    return { ...person, userId, role: users.get(userId)?.role ?? null, pulls: (pulls.get(person.id) ?? 0) + (pulls.get(userId) ?? 0) };
  });
  const shown = new Set(owners.values());
  for (const { id, name, role } of roll.users) {
    if (shown.has(id)) continue;
    people.push({ id: "", userId: id, name: nameOf(name), color: NO_COLOR, self: id === roll.userId, role, immersed: false, pulls: pulls.get(id) ?? 0 });
  }
  return people.sort(
    (a, b) => Number(b.self) - Number(a.self) || a.name.localeCompare(b.name) || (a.id + a.userId < b.id + b.userId ? -1 : 1),
  );
}

/** What is said about somebody beside their name. Who may what is left out where all may the same. */
export function aboutPerson(person: Person, people: readonly Person[]): string[] {
  const differ = people.some(({ role }) => role !== null && role !== person.role);
  const role = person.role === "viewer" ? "watching" : person.role === "host" && differ ? "host" : "";
  return [person.self ? "you" : "", role, person.immersed ? "in a headset" : "", person.pulls > 0 ? "pulling" : ""].filter(Boolean);
}

/** Red, green, blue (and alpha), 0 to 1, for CSS; grey where it is no color. */
export function cssColor(color: unknown): string {
  if (!Array.isArray(color) || color.length < 3) return NO_COLOR;
  const parts = color.slice(0, 3).map((part) => (typeof part === "number" && !Number.isNaN(part) ? Math.round(255 * Math.min(1, Math.max(0, part))) : 128));
  return `rgb(${parts.join(" ")})`;
}

function withAvatars(state: ReadonlyMap<string, unknown>, playerId: string): Person[] {
  const people: Person[] = [];
  for (const [key, value] of state) {
    if (!key.startsWith(AVATAR)) continue;
    const id = key.slice(AVATAR.length);
    people.push({
      id,
      userId: "",
      name: nameOf(field(value, "name")),
      color: cssColor(field(value, "color")),
      self: id === playerId,
      role: null,
      immersed: hands(field(value, "components")),
      pulls: 0,
    });
  }
  return people;
}

/** How many pulls act, by who owns them: avatars of clients of one kind, users of others. */
function pullsOf(state: ReadonlyMap<string, unknown>): Map<string, number> {
  const pulls = new Map<string, number>();
  for (const [key, value] of state) {
    if (!key.startsWith(INTERACTION)) continue;
    const owner = field(value, "owner.id");
    if (typeof owner === "string" && owner !== "") pulls.set(owner, (pulls.get(owner) ?? 0) + 1);
  }
  return pulls;
}

/** Of each avatar, the user: as the server says, and else the only one without an avatar who is called the same. */
function ownersOf(avatars: readonly Person[], playerId: string, roll: Roll): Map<string, string> {
  const owners = new Map<string, string>();
  for (const { id, avatars: theirs } of roll.users) for (const avatar of theirs) owners.set(avatar, id);
  if (roll.userId !== "") owners.set(playerId, roll.userId);
  const owning = new Set(owners.values());
  const free = roll.users.filter(({ id }) => !owning.has(id));
  for (const avatar of avatars) {
    if (owners.has(avatar.id)) continue;
    const alike = free.filter(({ name }) => nameOf(name) === avatar.name);
    const others = avatars.filter(({ id, name }) => name === avatar.name && !owners.has(id));
    if (alike.length === 1 && others.length === 1) owners.set(avatar.id, alike[0]!.id);
  }
  const there = new Set(avatars.map(({ id }) => id));
  for (const avatar of owners.keys()) if (!there.has(avatar)) owners.delete(avatar);
  return owners;
}

function nameOf(name: unknown): string {
  return typeof name === "string" && name.trim() !== "" ? name.trim().slice(0, 64) : "Somebody";
}

function field(value: unknown, name: string): unknown {
  return typeof value === "object" && value !== null ? (value as Record<string, unknown>)[name] : undefined;
}

function hands(components: unknown): boolean {
  return Array.isArray(components) && components.some((each) => String(field(each, "name")).startsWith("hand."));
}
