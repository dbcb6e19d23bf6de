/** What is wrong: with the connection, or with the simulation, which can then be reset from here. */

import type { Session } from "../contracts.ts";
import { sentence } from "../session/reasons.ts";
import { make, setText } from "./elements.ts";

const LONGEST = 500;
/** Commands that services speak of have a button or a key of that name here. */
const COMMAND = /\bplayback\/(play|reset)\b/g;
/** What is of use to those who write engines, and whose pull it was by its id. */
const REFERENCE = /\s*For more information, see https?:[^\s)]+/g;
/** A leader of replicas that waits for the lobby cannot be reset, and goes on by itself. */
const WAITS = /\bso the simulation waits\b/;
const WHOSE = /\binteraction \S+ of (\S+)(?= made\b)/;

/** The name of a user; empty for nobody who is here. */
export type NameOf = (userId: string) => string;

export class Trouble {
  readonly element: HTMLElement;
  readonly #session: Session;
  readonly #text = make("div", { className: "trouble", attributes_: { role: "alert" } });
  readonly #reset: HTMLButtonElement;

  constructor(
    session: Session,
    onReset: () => void,
    private readonly nameOf: NameOf = () => "",
  ) {
    this.#session = session;
    this.#reset = make("button", { type: "button", textContent: "Reset", hidden: true, onclick: onReset });
    this.element = make("div", { className: "alarm" }, this.#text, this.#reset);
  }

  /** What is shown is what is so; `mayReset` is whether a reset from here would be heeded. */
  look(mayReset: boolean): void {
    const connection = connectionWords(this.#session);
    const exception = connection === "" ? exceptionWords(this.#session, this.nameOf) : "";
    const resettable = exception !== "" && canBeReset(exception);
    setText(this.#text, connection || (resettable && !mayReset ? `${exception} A host can reset it.` : exception));
    this.#reset.hidden = !resettable || !mayReset;
    this.element.classList.toggle("shown", this.#text.textContent !== "");
  }
}

/** What is wrong with the simulation, as its services say; empty while nothing is. */
export function exceptionWords(session: Session, nameOf: NameOf): string {
  const said = session.frame?.values["system.simulation.exception"];
  if (typeof said !== "string") return "";
  const words = said
    .slice(0, LONGEST)
    .replace(WHOSE, (_, owner: string) => `a pull of ${nameOf(owner) || "somebody"}`)
    .replaceAll(REFERENCE, "")
    .replaceAll(COMMAND, (_, name: string) => name[0]!.toUpperCase() + name.slice(1));
  return sentence(words);
}

/** Whether a reset ends what `exceptionWords` tell of. */
export const canBeReset = (words: string): boolean => !WAITS.test(words);

/** A line for how the connection is; empty while it is well. */
export function connectionWords(session: Session): string {
  const { status } = session;
  if (status.kind === "lost") return `${status.reason} Trying again…`;
  if (status.kind === "ended") return status.reason;
  if (status.kind === "connecting" && status.attempt > 0) return "Trying to reach the server again…";
  return "";
}
