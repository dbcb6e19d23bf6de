import { expect, test } from "vitest";
import type { Role, User } from "../session/roster.ts";
import { aboutPerson, cssColor, peopleOf } from "./people.ts";

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

const user = (id: string, name: string, role: Role, ...avatars: string[]): User => ({ id, name, role, avatars });

test("those without an avatar are there, too, and each is shown once", () => {
  const users = [user("u1", "Ada", "host"), user("u2", "Eve", "viewer"), user("u3", "Zoe", "participant"), user("u4", "XR guest 4", "participant", "b")];
  const people = peopleOf(STATE, "me", { userId: "u1", role: "host", users });
  expect(people.map(({ id, userId, name, role }) => [id, userId, name, role])).toEqual([
    ["me", "u1", "Ada", "host"],
    ["", "u2", "Eve", "viewer"],
    ["b", "u4", "Somebody", "participant"],
    ["n", "", "Somebody", null],
    ["z", "u3", "Zoe", "participant"],
  ]);
});

test("of two with one name, neither is taken for the other", () => {
  const users = [user("u1", "Ada", "host"), user("u2", "Zoe", "viewer"), user("u3", "Zoe", "host")];
  const zoes = peopleOf(STATE, "me", { userId: "u1", role: "host", users }).filter(({ name }) => name === "Zoe");
  expect(zoes.map(({ id, userId }) => [id, userId])).toEqual([["", "u2"], ["", "u3"], ["z", ""]]);
});

test("we are there without an avatar of ours", () => {
  const [us] = peopleOf(new Map(), "me", { userId: "u1", role: "viewer", users: [user("u1", "Ada", "viewer")] });
  expect(us).toMatchObject({ self: true, id: "", role: "viewer" });
  expect(aboutPerson(us!, [us!])).toEqual(["you", "watching"]);
});

test("pulls count by avatar or by user", () => {
  const state = new Map<string, unknown>([["avatar.p", { name: "Bob" }], ["interaction.1", { "owner.id": "p" }], ["interaction.2", { "owner.id": "u" }]]);
  expect(peopleOf(state, "me", { userId: "", role: null, users: [user("u", "Bob", "host")] })[0]!.pulls).toBe(2);
});

test("who hosts is told only where not everybody does", () => {
  const [ada, bob] = peopleOf(new Map(), "me", { userId: "", role: null, users: [user("a", "Ada", "host"), user("b", "Bob", "participant")] });
  expect([aboutPerson(ada!, [ada!, bob!]), aboutPerson(bob!, [ada!, bob!]), aboutPerson(ada!, [ada!])]).toEqual([["host"], [], []]);
});
