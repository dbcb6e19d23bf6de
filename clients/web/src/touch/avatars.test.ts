import { describe, expect, it } from "vitest";
import { avatarOf, nameOf } from "./avatars.ts";

const headset = { name: "headset", position: [1, 2, 3], rotation: [0, 0, 0, 1] };

describe("an avatar", () => {
  it("is read as existing clients write it", () => {
    const value = { playerid: "p", name: "Bob", color: [1, 0.5, 0, 1], components: [headset, { ...headset, name: "hand.right" }] };
    expect(avatarOf("avatar.p", value)).toEqual({
      id: "p",
      name: "Bob",
      color: [1, 0.5, 0],
      parts: [
        { position: [1, 2, 3], rotation: [0, 0, 0, 1] },
        null,
        { position: [1, 2, 3], rotation: [0, 0, 0, 1] },
      ],
    });
  });

  it("is none of other keys, and of values that are no map", () => {
    expect(avatarOf("scene", {})).toBeNull();
    for (const value of [null, 3, "x", []]) expect(avatarOf("avatar.p", value)).toBeNull();
  });

  it("has no parts that make no sense", () => {
    const components = [
      null,
      "headset",
      { name: "headset", position: [1, 2], rotation: [0, 0, 0, 1] },
      { name: "hand.left", position: [1, Number.NaN, 2], rotation: [0, 0, 0, 1] },
      { name: "hand.right", position: [1, 1e30, 2], rotation: [0, 0, 0, 1] },
      { name: "tail", position: [1, 2, 3], rotation: [0, 0, 0, 1] },
    ];
    expect(avatarOf("avatar.p", { components })?.parts).toEqual([null, null, null]);
    expect(avatarOf("avatar.p", { components: { ...components } })?.parts).toEqual([null, null, null]);
  });

  it("is upright where its rotation is none, and grey where its color is none", () => {
    const avatar = avatarOf("avatar.p", { color: "red", components: [{ ...headset, rotation: [0, 0, 0, 0] }] });
    expect(avatar?.parts[0]?.rotation).toEqual([0, 0, 0, 1]);
    expect(avatar?.color).toEqual([0.6, 0.6, 0.6]);
    expect(avatarOf("avatar.p", { color: [9, -1, 0.5] })?.color).toEqual([1, 0, 0.5]);
  });
});

describe("a name", () => {
  it("is one line and not too long", () => {
    expect(nameOf("  Ada\n\tLovelace\u202e ")).toBe("Ada Lovelace");
    expect([...nameOf("x".repeat(1e6))]).toHaveLength(32);
    expect([...nameOf("🦀".repeat(500))].length).toBeLessThanOrEqual(32);
    expect(nameOf(undefined)).toBe("");
  });
});
