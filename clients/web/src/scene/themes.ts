/** Colours of what surrounds the particles. */

export interface SceneTheme {
  readonly background: number;
  readonly box: number;
  readonly highlight: number;
  /** How much edges darken. */
  readonly outline: number;
  /** How far the most distant particles fade into the background. */
  readonly fog: number;
}

export const THEMES: Readonly<Record<"light" | "dark", SceneTheme>> = {
  light: { background: 0xf3f5f8, box: 0x8693a5, highlight: 0xff7a1a, outline: 0.62, fog: 0.45 },
  dark: { background: 0x0f141b, box: 0x54657c, highlight: 0xffc34d, outline: 0.5, fog: 0.55 },
};
