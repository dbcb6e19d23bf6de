import { expect, test } from "vitest";
import { cssColor, peopleOf } from "./people.ts";

const STATE = new Map<string, unknown>([
  ["avatar.z", { name: "Zoe", color: [1, 0, 0, 1], components: [{ name: "headset" }, { name: "hand.left" }] }],
  ["avatar.me", { name: " Ada ", color: [0, 0.5, 1, 1], components: [{ name: "headset" }] }],
  ["avatar.b", { name: "", color: "red" }],
  ["avatar.n", null],
  ["interaction.1", { "owner.id": "z" }],
  ["interaction.2", { "owner.id": "z" }],
  ["interaction.3", 7],
  ["scene", [1]],
]);

test("we come first, the others by name", () => {
  expect(peopleOf(STATE, "me").map(({ id, name }) => [id, name])).toEqual([
    ["me", "Ada"],
    ["b", "Somebody"],
    ["n", "Somebody"],
    ["z", "Zoe"],
  ]);
});

test("what they do is told", () => {
  const people = peopleOf(STATE, "me");
  expect(people[0]).toMatchObject({ self: true, immersed: false, pulls: 0, color: "rgb(0 128 255)" });
  expect(people[3]).toMatchObject({ self: false, immersed: true, pulls: 2, color: "rgb(255 0 0)" });
  expect(people[1]!.color).toBe("rgb(128 128 128)");
});

test("colours are colours, whatever was written", () => {
  expect(cssColor([9, -1, "x"])).toBe("rgb(255 0 128)");
  expect(cssColor([NaN, 0, 0])).toBe("rgb(128 0 0)");
});
