/** What keys do, declared as data: for the listener, and for the help that lists them. */

export interface Shortcut {
  readonly keys: readonly string[];
  readonly shown: string;
  readonly does: string;
  readonly action: Action;
}

export type Action =
  | { readonly kind: "play" | "step" | "reset" | "release" | "help" | "panel" | "camera" | "marking" | "mark" }
  | { readonly kind: "representation"; readonly index: number }
  | { readonly kind: "nudge"; readonly dx: number; readonly dy: number };

/** How far an arrow key pulls, nm. */
const NUDGE = 0.05;

const nudge = (key: string, shown: string, side: string, dx: number, dy: number): Shortcut => ({
  keys: [key],
  shown,
  does: `Pull what is highlighted ${side}`,
  action: { kind: "nudge", dx: dx * NUDGE, dy: dy * NUDGE },
});

const shape = (index: number, name: string): Shortcut => ({
  keys: [String(index + 1)],
  shown: String(index + 1),
  does: `Show as ${name}`,
  action: { kind: "representation", index },
});

export const SHORTCUTS: readonly Shortcut[] = [
  { keys: [" "], shown: "Space", does: "Play or pause", action: { kind: "play" } },
  { keys: ["."], shown: ".", does: "One step", action: { kind: "step" } },
  { keys: ["r", "R"], shown: "R", does: "Reset the simulation", action: { kind: "reset" } },
  shape(0, "ball and stick"),
  shape(1, "liquorice"),
  shape(2, "spheres"),
  shape(3, "ribbon"),
  shape(4, "lines"),
  nudge("ArrowLeft", "←", "to the left", -1, 0),
  nudge("ArrowRight", "→", "to the right", 1, 0),
  nudge("ArrowUp", "↑", "up", 0, 1),
  nudge("ArrowDown", "↓", "down", 0, -1),
  { keys: ["Escape"], shown: "Esc", does: "Let go of everything, then forget what is marked", action: { kind: "release" } },
  { keys: ["e", "E"], shown: "E", does: "Mark atoms with clicks, or pull them", action: { kind: "marking" } },
  { keys: ["Enter"], shown: "Enter", does: "Mark what is highlighted or in the middle, or take the mark away", action: { kind: "mark" } },
  { keys: ["c", "C"], shown: "C", does: "Look at everything", action: { kind: "camera" } },
  { keys: ["p", "P"], shown: "P", does: "Show or hide the panel", action: { kind: "panel" } },
  { keys: ["?"], shown: "?", does: "This help", action: { kind: "help" } },
];

/** What the picture does by itself with keys, while it has the focus. */
export const CAMERA_KEYS: readonly { readonly shown: string; readonly does: string }[] = [
  { shown: "Shift + ← → ↑ ↓", does: "Turn" },
  { shown: "W A S D", does: "Move" },
  { shown: "+ −", does: "Come closer, go away" },
  { shown: "Home", does: "Look at everything" },
];

interface Pressed {
  readonly key: string;
  readonly ctrlKey: boolean;
  readonly metaKey: boolean;
  readonly altKey: boolean;
  readonly defaultPrevented: boolean;
}

/** Elements that have a use of their own for some keys. */
const TYPED = new Set(["INPUT", "SELECT", "TEXTAREA"]);
const PRESSED = new Set(["BUTTON", "SUMMARY", "A"]);

/** What a key does when an element of this kind has the focus; null for nothing of ours. */
export function actionOf(event: Pressed, focused: string): Action | null {
  if (event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return null;
  if (TYPED.has(focused) && event.key !== "Escape") return null;
  if (PRESSED.has(focused) && (event.key === " " || event.key === "Enter")) return null;
  return SHORTCUTS.find((each) => each.keys.includes(event.key))?.action ?? null;
}
