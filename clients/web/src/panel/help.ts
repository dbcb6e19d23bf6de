/** The dialog that says what keys and gestures do. */

import { make } from "./elements.ts";
import { CAMERA_KEYS, SHORTCUTS } from "./keys.ts";

const GESTURES: readonly (readonly [gesture: string, does: string])[] = [
  ["Drag an atom", "Pull it; the wheel takes it nearer or further away"],
  ["Drag beside", "Turn; with the right button, or two fingers, move"],
  ["Scroll or pinch", "Come closer, go away"],
  ["Shift + click", "Mark an atom, or take the mark away; a long press does, too"],
];

interface Row {
  readonly shown: string;
  readonly does: string;
}

export function helpDialog(): HTMLDialogElement {
  const dialog: HTMLDialogElement = make(
    "dialog",
    { className: "dialog", attributes_: { "aria-labelledby": "help-title" } },
    make("h2", { id: "help-title", tabIndex: -1, autofocus: true, textContent: "Keys and gestures" }),
    list(GESTURES.map(([shown, does]) => ({ shown, does })), "gestures"),
    list(SHORTCUTS, "keys"),
    make("h3", { textContent: "While the picture has the focus" }),
    list(CAMERA_KEYS, "keys wide"),
    make("div", { className: "row" }, make("button", { type: "button", className: "primary", textContent: "Close", onclick: () => dialog.close() })),
  );
  return dialog;
}

function list(rows: readonly Row[], className: string): HTMLDListElement {
  const items = rows.map(({ shown, does }) =>
    make("div", {}, make("dt", {}, className.startsWith("keys") ? make("kbd", { textContent: shown }) : shown), make("dd", { textContent: does })),
  );
  return make("dl", { className }, ...items);
}
