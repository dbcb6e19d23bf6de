/** What the notebook's side of a widget is to its front end, as anywidget has it. */

import type { CameraPlace, ColorScheme, Representation } from "../contracts.ts";

/** The traits of `narupa_client.notebook.widget.SessionView`. */
export interface Traits {
  representation: Representation;
  colors: ColorScheme;
  selection: readonly number[];
  camera: CameraPlace | null;
  height: number;
  _user: { readonly name: string; readonly color: string };
}

/** Messages to and from the kernel that are no traits. */
export interface Comm {
  send(content: unknown, callbacks?: unknown, buffers?: ArrayBuffer[]): void;
  on(event: "msg:custom", listener: (content: unknown, buffers: readonly DataView[]) => void): void;
  off(event: "msg:custom", listener: (content: unknown, buffers: readonly DataView[]) => void): void;
}

export interface Model {
  get<Key extends keyof Traits>(key: Key): Traits[Key];
  set<Key extends keyof Traits>(key: Key, value: Traits[Key]): void;
  save_changes(): void;
  send: Comm["send"];
  on(event: `change:${keyof Traits}`, listener: () => void): void;
  on(event: "msg:custom", listener: (content: unknown, buffers: readonly DataView[]) => void): void;
  off(event: `change:${keyof Traits}`, listener: () => void): void;
  off(event: "msg:custom", listener: (content: unknown, buffers: readonly DataView[]) => void): void;
}

/** Particles as the notebook has given them. */
export function particlesOf(said: unknown): readonly number[] {
  return Array.isArray(said) ? said.filter((each) => Number.isSafeInteger(each) && each >= 0) : [];
}
