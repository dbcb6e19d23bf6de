/** What can be chosen here, declared as data, and kept in this browser. */

import type { ColorScheme, MarkUnit, PullSettings, Representation } from "../contracts.ts";

export interface Settings {
  representation: Representation;
  colors: ColorScheme;
  smoothing: boolean;
  box: boolean;
  theme: "system" | "light" | "dark";
  law: PullSettings["law"];
  /** Powers of ten, by law: what is felt as twice as strong is a factor. */
  strength: { spring: number; gaussian: number; constant: number };
  target: PullSettings["target"];
  unit: MarkUnit;
  resetVelocities: boolean;
}

type ChoiceKey = "representation" | "colors" | "theme" | "law" | "target" | "unit";
type SwitchKey = "smoothing" | "box" | "resetVelocities";

export interface Choice {
  readonly label: string;
  readonly options: readonly (readonly [value: string, label: string])[];
}

export const CHOICES: Readonly<Record<ChoiceKey, Choice>> = {
  representation: {
    label: "Shape",
    options: [
      ["ball and stick", "Ball and stick"],
      ["liquorice", "Liquorice"],
      ["spheres", "Spheres"],
      ["ribbon", "Ribbon"],
      ["lines", "Lines"],
    ],
  },
  colors: {
    label: "Colours",
    options: [
      ["element", "By element"],
      ["residue", "By residue"],
      ["chain", "By chain"],
      ["uniform", "One colour"],
    ],
  },
  theme: {
    label: "Theme",
    options: [
      ["system", "As the system"],
      ["light", "Light"],
      ["dark", "Dark"],
    ],
  },
  law: {
    label: "Force",
    options: [
      ["spring", "Spring"],
      ["gaussian", "Gaussian"],
      ["constant", "Constant"],
    ],
  },
  target: {
    label: "Grab",
    options: [
      ["atom", "Atom"],
      ["residue", "Residue"],
      ["selection", "Selection"],
    ],
  },
  unit: {
    label: "Mark",
    options: [
      ["atom", "Atoms"],
      ["residue", "Residues"],
      ["chain", "Chains"],
    ],
  },
};

export const SWITCHES: Readonly<Record<SwitchKey, string>> = {
  smoothing: "Smooth motion",
  box: "Show the box",
  resetVelocities: "Reset velocities on release",
};

export const STRENGTH = { label: "Strength", min: 0, max: 5, step: 0.1 } as const;

export const DEFAULTS: Settings = {
  representation: "ball and stick",
  colors: "element",
  smoothing: true,
  box: true,
  theme: "system",
  law: "spring",
  strength: { spring: 2, gaussian: 2.3, constant: 1.5 },
  target: "atom",
  unit: "atom",
  resetVelocities: false,
};

/** Settings as they were kept; what is missing, or no choice there is, is as at first. */
export function readSettings(text: string | null): Settings {
  const settings: Settings = { ...DEFAULTS, strength: { ...DEFAULTS.strength } };
  let kept: unknown;
  try {
    kept = JSON.parse(text ?? "{}");
  } catch {
    return settings;
  }
  if (typeof kept !== "object" || kept === null) return settings;
  const said = kept as Record<string, unknown>;
  for (const key of Object.keys(CHOICES) as ChoiceKey[]) {
    if (CHOICES[key].options.some(([value]) => value === said[key])) Object.assign(settings, { [key]: said[key] });
  }
  for (const key of Object.keys(SWITCHES) as SwitchKey[]) {
    if (typeof said[key] === "boolean") settings[key] = said[key];
  }
  const strength = said["strength"];
  if (typeof strength === "object" && strength !== null) {
    for (const law of Object.keys(DEFAULTS.strength) as PullSettings["law"][]) {
      const power: unknown = (strength as Record<string, unknown>)[law];
      if (typeof power === "number" && power >= STRENGTH.min && power <= STRENGTH.max) settings.strength[law] = power;
    }
  }
  return settings;
}

/** A power of ten that is so many steps of a button stronger: two are over half as much again. */
export function strengthened(power: number, steps: number): number {
  return Math.min(STRENGTH.max, Math.max(STRENGTH.min, Number((power + steps * STRENGTH.step).toFixed(6))));
}

/** How pulls are made, as these settings say. */
export function pullSettings(settings: Settings): PullSettings {
  const { law, target, resetVelocities } = settings;
  return { law, scale: 10 ** settings.strength[law], target, resetVelocities };
}
