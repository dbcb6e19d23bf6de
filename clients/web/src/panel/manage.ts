/** What a host says about people: what each of them may, who goes, and as what others come in. */

import type { Session } from "../contracts.ts";
import { ROLES, type Role } from "../session/roster.ts";
import { make, setText } from "./elements.ts";
import type { Person } from "./people.ts";
import { showPerson } from "./people-list.ts";

const MAY: Readonly<Record<Role, string>> = { viewer: "Watches", participant: "Takes part", host: "Hosts" };
const GUESTS: readonly (readonly [role: string, label: string])[] = [
  ["", "As the server is set"],
  ["none", "Nobody: a code is needed"],
  ["viewer", "May watch"],
  ["participant", "May take part"],
  ["host", "Are hosts"],
];
/** How long a button that was pressed once asks whether it was meant, ms. */
const ASK_FOR_MS = 4000;

interface Row {
  readonly element: HTMLLIElement;
  readonly role: HTMLSelectElement;
}

export class ManageDialog {
  readonly element: HTMLDialogElement;
  readonly #list = make("ul", { className: "manage" });
  readonly #guests: HTMLSelectElement;
  readonly #said = make("p", { className: "hint", attributes_: { role: "status" } });
  readonly #close = make("button", { type: "button", className: "primary", textContent: "Close", onclick: () => this.element.close() });
  readonly #rows = new Map<string, Row>();

  constructor(
    private readonly session: Session,
    private readonly onChange: () => void,
  ) {
    const guests = make("select", { id: "guest-role" }, ...GUESTS.map(([value, textContent]) => make("option", { value, textContent })));
    this.#guests = guests;
    guests.onchange = () => void this.#run("session/set-guest-role", { role: guests.value }, "That holds for whoever comes from now on.");
    this.element = make(
      "dialog",
      { className: "dialog", attributes_: { "aria-labelledby": "manage-title" } },
      make("h2", { id: "manage-title", textContent: "People" }),
      this.#list,
      make("label", { htmlFor: guests.id, textContent: "Who comes without a code" }),
      guests,
      this.#said,
      make("div", { className: "row" }, this.#close),
    );
  }

  open(people: readonly Person[]): void {
    setText(this.#said, "");
    this.show(people);
    this.element.showModal();
    void this.#showGuests();
  }

  /** These are here now. */
  show(people: readonly Person[]): void {
    const users = people.filter(({ userId }) => userId !== "");
    for (const [id, row] of this.#rows) {
      if (users.some(({ userId }) => userId === id)) continue;
      if (row.element.contains(document.activeElement)) this.#close.focus();
      row.element.remove();
      this.#rows.delete(id);
    }
    for (const person of users) {
      const row = this.#rows.get(person.userId) ?? this.#add(person);
      showPerson(row.element, person, []);
      if (document.activeElement !== row.role) row.role.value = person.role ?? "";
      row.role.setAttribute("aria-label", `What ${person.name} may`);
      this.#list.append(...(row.element.isConnected ? [] : [row.element]));
    }
  }

  #add(person: Person): Row {
    const { userId, name, self } = person;
    const role = make("select", {}, ...ROLES.map((value) => make("option", { value, textContent: MAY[value] })));
    role.onchange = () => void this.#run("session/set-role", { user: userId, role: role.value }, `${name}: ${MAY[role.value as Role].toLowerCase()}.`);
    const remove = asked("Remove", `Remove ${name}?`, () => void this.#run("session/remove", { user: userId }, `${name} was removed.`));
    remove.disabled = self;
    const row = { element: make("li", {}, make("span", { className: "swatch" }), make("span", { className: "name" }), role, remove), role };
    this.#rows.set(userId, row);
    return row;
  }

  async #showGuests(): Promise<void> {
    try {
      const { role } = await this.session.run("session/get-guest-role");
      this.#guests.value = typeof role === "string" ? role : "";
    } catch (error) {
      setText(this.#said, (error as Error).message);
    }
  }

  async #run(command: string, args: Record<string, unknown>, done: string): Promise<void> {
    try {
      await this.session.run(command, args);
      setText(this.#said, done);
    } catch (error) {
      setText(this.#said, (error as Error).message);
    }
    this.onChange();
  }
}

/** A button that has to be pressed twice within some seconds. */
export function asked(label: string, question: string, onMeant: () => void): HTMLButtonElement {
  let timer: ReturnType<typeof setTimeout> | null = null;
  const calm = () => {
    if (timer !== null) clearTimeout(timer);
    timer = null;
    setText(button, label);
  };
  const button: HTMLButtonElement = make("button", {
    type: "button",
    textContent: label,
    onclick: () => {
      if (timer !== null) {
        calm();
        onMeant();
        return;
      }
      setText(button, question);
      timer = setTimeout(calm, ASK_FOR_MS);
    },
  });
  return button;
}
