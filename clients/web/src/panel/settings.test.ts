import { expect, test } from "vitest";
import { actionOf, SHORTCUTS } from "./keys.ts";
import { CHOICES, DEFAULTS, pullSettings, readSettings } from "./settings.ts";

test("settings are kept", () => {
  const settings = { ...DEFAULTS, representation: "spheres" as const, box: false, strength: { ...DEFAULTS.strength, spring: 3.5 } };
  expect(readSettings(JSON.stringify(settings))).toEqual(settings);
});

test.each([null, "", "{", "5", "null", '{"representation":"magic","box":"yes","strength":{"spring":99},"law":1}'])("what is no setting is as at first (%s)", (text) => {
  expect(readSettings(text)).toEqual(DEFAULTS);
});

test("reading makes no change to what is as at first", () => {
  readSettings('{"strength":{"spring":5}}').smoothing = false;
  expect(DEFAULTS.strength.spring).toBe(2);
  expect(DEFAULTS.smoothing).toBe(true);
});

test("strength belongs to its law", () => {
  expect(pullSettings({ ...DEFAULTS, law: "gaussian" })).toMatchObject({ law: "gaussian", scale: 10 ** 2.3 });
  expect(pullSettings({ ...DEFAULTS, law: "spring" }).scale).toBe(100);
});

test("the settings at first are among the choices", () => {
  for (const key of Object.keys(CHOICES) as (keyof typeof CHOICES)[]) expect(CHOICES[key].options.map(([value]) => value)).toContain(DEFAULTS[key]);
});

const pressed = (key: string, more = {}) => ({ key, ctrlKey: false, metaKey: false, altKey: false, defaultPrevented: false, ...more });

test("keys do what the help says", () => {
  const keys = SHORTCUTS.flatMap((each) => each.keys);
  expect(new Set(keys).size).toBe(keys.length);
  expect(actionOf(pressed(" "), "BODY")).toEqual({ kind: "play" });
  expect(actionOf(pressed("4"), "CANVAS")).toEqual({ kind: "representation", index: 3 });
  expect(CHOICES.representation.options[3]![0]).toBe("ribbon");
  expect(actionOf(pressed("ArrowUp"), "BODY")).toEqual({ kind: "nudge", dx: 0, dy: 0.05 });
  expect(actionOf(pressed("x"), "BODY")).toBeNull();
});

test("keys are left to those who have a use for them", () => {
  expect(actionOf(pressed("r"), "INPUT")).toBeNull();
  expect(actionOf(pressed("ArrowUp"), "SELECT")).toBeNull();
  expect(actionOf(pressed("Escape"), "INPUT")).toEqual({ kind: "release" });
  expect(actionOf(pressed(" "), "BUTTON")).toBeNull();
  expect(actionOf(pressed("r", { ctrlKey: true }), "BODY")).toBeNull();
  expect(actionOf(pressed("r", { defaultPrevented: true }), "BODY")).toBeNull();
});
