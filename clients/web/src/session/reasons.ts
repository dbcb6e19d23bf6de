/** Why a connection ended, as a sentence for a person, and whether it is any use to try again. */

export interface Ending {
  readonly reason: string;
  readonly again: boolean;
  /** Whether whoever was in before may wait for it to pass. */
  readonly passes: boolean;
  /** The session asks for a password: what was taken for a code may be it. */
  readonly wantsPassword: boolean;
}

/** Reasons that services give, what they come to for whoever sits here, and whether they pass; the first that matches counts. */
const KNOWN: readonly (readonly [RegExp, string, passes?: true])[] = [
  [/join_code is wrong|password is wrong/, "This code is not right. Ask whoever runs the session for it."],
  [/invite is (wrong|used up)/, "This invitation is used up, has expired or was withdrawn. Ask whoever sent it for another."],
  [/join_code is missing|password is missing|lets nobody in as a guest/, "This session asks for a code. Ask whoever runs it, and type it in here."],
  [/removed from the session/, "A host has removed you from the session."],
  [/too many wrong attempts.*?try again in (\d+) s/, "There were too many wrong codes from here. Try again in $1 s.", true],
  [/too many joins.*?try again in (\d+) s/, "Too many have joined from here at once. Try again in $1 s.", true],
  [/is full with (\d+) users/, "The session is full: $1 people are in it. Try again later.", true],
  [/clients are connected, which is/, "The server has as many connections as it can take. Try again later.", true],
  [/give it once, with at most \d+ characters/, "This link is not right. Ask whoever sent it for another."],
  [/session .*has ended/, "The session has ended."],
];

export const UNREACHABLE = "The server cannot be reached. It may have stopped, or your network may be down.";
export const SILENT = "The server has stopped answering.";
export const UNREADABLE = "The server sent something that this page cannot read: the two may be of different versions. Reload the page.";

/**
 * What a closed WebSocket means.
 *
 * @param code - Of RFC 6455, section 7.4.1.
 * @param reason - What the server said, possibly cut short.
 * @param opened - Whether the connection had come about before.
 */
export function endingOf(code: number, reason: string, opened: boolean): Ending {
  for (const [pattern, words, passes = false] of KNOWN) {
    const match = pattern.exec(reason);
    if (match === null) continue;
    return { reason: words.replace("$1", match[1] ?? ""), again: false, passes, wantsPassword: /password is missing/.test(reason) };
  }
  const again = code !== 1008;
  return { reason: sentence(reason) || withoutReason(code, opened), again, passes: again, wantsPassword: false };
}

function withoutReason(code: number, opened: boolean): string {
  if (code === 1008) return "The server has refused the connection.";
  if (code === 1009) return "What was sent was too large for the server.";
  if (code === 1006 && !opened) return UNREACHABLE;
  return "The connection to the server was lost.";
}

/** A reason as it came, begun with a capital and ended with a full stop. */
export function sentence(text: string): string {
  const trimmed = text.trim();
  if (trimmed === "") return "";
  return trimmed[0]!.toUpperCase() + trimmed.slice(1) + (/[.!?…]$/.test(trimmed) ? "" : ".");
}
