/** Who is in the session, and what each of them may, as the server tells when it is asked. */

import type { Session } from "../contracts.ts";
import { isMap, texts } from "./wire.ts";

export const ROLES = ["viewer", "participant", "host"] as const;
export type Role = (typeof ROLES)[number];

export interface User {
  readonly id: string;
  readonly name: string;
  readonly role: Role | null;
  /** Suffixes of the avatars' keys that are known to be theirs. */
  readonly avatars: readonly string[];
}

export interface Roll {
  /** Our own id among the users; empty where it is not known. */
  readonly userId: string;
  readonly role: Role | null;
  readonly users: readonly User[];
}

export const NOBODY: Roll = { userId: "", role: null, users: [] };

const ASK_EVERY_MS = 2000;
/** More are not listed. */
const MOST_USERS = 500;

export class Roster {
  roll: Roll = NOBODY;
  #askedAt = -Infinity;
  #asking = false;

  constructor(
    private readonly session: Session,
    private readonly onChange: () => void,
  ) {}

  /** To be called a few times a second: asks when it is due. */
  look(now: number): void {
    if (this.session.status.kind !== "open" || this.#asking || now - this.#askedAt < ASK_EVERY_MS) return;
    this.#askedAt = now;
    void this.#ask();
  }

  /** What is known may be out of date: it is asked for with the next look. */
  refresh(): void {
    this.#askedAt = -Infinity;
  }

  async #ask(): Promise<void> {
    this.#asking = true;
    try {
      this.roll = rollOf(await this.session.run("session/get-people"));
      this.onChange();
    } catch {
      // Asked again in a moment; servers that do not know of it have everybody's avatar to go by.
    } finally {
      this.#asking = false;
    }
  }
}

/** What the server said, with only what makes sense of it. */
export function rollOf(said: Readonly<Record<string, unknown>>): Roll {
  const people = Array.isArray(said["people"]) ? said["people"].slice(0, MOST_USERS).filter(isMap) : [];
  return {
    userId: textOf(said["user"]),
    role: roleOf(said["role"]),
    users: people
      .map((each) => ({ id: textOf(each["id"]), name: textOf(each["name"]), role: roleOf(each["role"]), avatars: texts(each["avatars"]) }))
      .filter(({ id }) => id !== ""),
  };
}

function roleOf(item: unknown): Role | null {
  return ROLES.find((role) => role === item) ?? null;
}

function textOf(item: unknown): string {
  return typeof item === "string" ? item : "";
}
