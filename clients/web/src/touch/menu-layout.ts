/** What the menu in a headset offers, and where on it. */

import type { PullSettings } from "../contracts.ts";

export type MenuAction =
  | { readonly kind: "run"; readonly command: string; readonly done: string }
  | { readonly kind: "law"; readonly law: PullSettings["law"] }
  /** So many steps stronger. */
  | { readonly kind: "strength"; readonly steps: 1 | -1 }
  | { readonly kind: "bring" }
  | { readonly kind: "share" }
  | { readonly kind: "leave" };

export interface MenuItem {
  readonly label: string;
  readonly action: MenuAction;
  /** Shares of the menu's width and height, from its top left. */
  readonly x: number;
  readonly y: number;
  readonly width: number;
  readonly height: number;
}

/** Metres. */
export const MENU_SIZE = { width: 0.26, height: 0.24 } as const;
/** Above the first row there is a line that says what is chosen. */
export const HEADER = 0.14;
const GAP = 0.015;

const ROWS: readonly (readonly (readonly [label: string, action: MenuAction])[])[] = [
  [
    ["Play", { kind: "run", command: "playback/play", done: "Playing" }],
    ["Pause", { kind: "run", command: "playback/pause", done: "Paused" }],
    ["Step", { kind: "run", command: "playback/step", done: "One step" }],
    ["Reset", { kind: "run", command: "playback/reset", done: "Reset" }],
  ],
  [
    ["Spring", { kind: "law", law: "spring" }],
    ["Gaussian", { kind: "law", law: "gaussian" }],
    ["Constant", { kind: "law", law: "constant" }],
  ],
  [
    ["Weaker", { kind: "strength", steps: -1 }],
    ["Stronger", { kind: "strength", steps: 1 }],
  ],
  [
    ["Bring here", { kind: "bring" }],
    ["Move for all", { kind: "share" }],
    ["Leave", { kind: "leave" }],
  ],
];

export const MENU: readonly MenuItem[] = ROWS.flatMap((row, at) => {
  const height = (1 - HEADER) / ROWS.length;
  const width = 1 / row.length;
  return row.map(([label, action], column) => ({
    label,
    action,
    x: column * width + GAP,
    y: HEADER + at * height + GAP,
    width: width - 2 * GAP,
    height: height - 2 * GAP,
  }));
});

/** Which item is at a point of the menu, as shares of its width and height from its top left; -1 for none. */
export function itemAt(x: number, y: number): number {
  return MENU.findIndex((item) => x >= item.x && x <= item.x + item.width && y >= item.y && y <= item.y + item.height);
}
