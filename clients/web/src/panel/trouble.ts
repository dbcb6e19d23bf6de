/** What is wrong: with the connection, or with the simulation, which can then be reset from here. */

import type { Session } from "../contracts.ts";
import { make, setText } from "./elements.ts";

const LONGEST = 500;

export class Trouble {
  readonly element: HTMLElement;
  readonly #session: Session;
  readonly #text = make("div", { className: "trouble", attributes_: { role: "alert" } });
  readonly #reset: HTMLButtonElement;

  constructor(session: Session, onReset: () => void) {
    this.#session = session;
    this.#reset = make("button", { type: "button", textContent: "Reset", hidden: true, onclick: onReset });
    this.element = make("div", { className: "alarm" }, this.#text, this.#reset);
  }

  /** What is shown is what is so; `mayReset` is whether a reset from here would be heeded. */
  look(mayReset: boolean): void {
    const connection = connectionWords(this.#session);
    const exception = connection === "" ? exceptionWords(this.#session) : "";
    setText(this.#text, connection || (exception && !mayReset ? `${exception} A host can reset it.` : exception));
    this.#reset.hidden = exception === "" || !mayReset;
    this.element.classList.toggle("shown", this.#text.textContent !== "");
  }
}

function exceptionWords(session: Session): string {
  const said = session.frame?.values["system.simulation.exception"];
  return typeof said === "string" ? said.trim().slice(0, LONGEST) : "";
}

/** A line for how the connection is; empty while it is well. */
export function connectionWords(session: Session): string {
  const { status } = session;
  if (status.kind === "lost") return `${status.reason} Trying again…`;
  if (status.kind === "ended") return status.reason;
  if (status.kind === "connecting" && status.attempt > 0) return "Trying to reach the server again…";
  return "";
}
