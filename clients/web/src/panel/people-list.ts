/** The list of who is here, and what we may ourselves. */

import type { Session } from "../contracts.ts";
import type { Roster } from "../session/roster.ts";
import { make, setText } from "./elements.ts";
import { aboutPerson, peopleOf, type Person } from "./people.ts";

export class PeopleList {
  readonly title = make("summary", { textContent: "People" });
  readonly list = make("ul", { className: "people" });
  /** Where the panel is hidden, too. */
  readonly role = make("p", { className: "role" });
  people: readonly Person[] = [];

  constructor(
    private readonly session: Session,
    private readonly roster: Roster,
  ) {}

  /** We only watch. */
  get watching(): boolean {
    return this.roster.roll.role === "viewer" || (this.roster.roll.role === null && this.session.watching);
  }

  /** We may run the simulation, for all that is known. */
  get mayRun(): boolean {
    const { role } = this.roster.roll;
    return role === "host" || (role === null && !this.session.watching);
  }

  /** The name of a user; empty for nobody who is here. */
  nameOf(userId: string): string {
    return this.people.find((each) => each.userId === userId)?.name ?? "";
  }

  show(): void {
    const { state, playerId, color } = this.session;
    const people = peopleOf(state, playerId, this.roster.roll).map((each) => (each.self && each.id === "" ? { ...each, color } : each));
    this.people = people;
    setText(this.title, people.length === 0 ? "People" : `People (${people.length})`);
    setText(this.role, this.watching ? "You are watching" : "");
    const { list } = this;
    while (list.children.length > people.length) list.lastElementChild!.remove();
    people.forEach((person, at) => {
      const item = list.children[at] ?? list.appendChild(make("li", {}, make("span", { className: "swatch" }), make("span")));
      showPerson(item, person, people);
    });
  }
}

/** Shows somebody in an element whose first child is a swatch, and whose second is for their name. */
export function showPerson(element: Element, person: Person, people: readonly Person[]): void {
  const [swatch, text] = [element.children[0] as HTMLElement, element.children[1]!];
  swatch.style.setProperty("background-color", person.color);
  const about = aboutPerson(person, people);
  setText(text, person.name + (about.length > 0 ? ` (${about.join(", ")})` : ""));
}
