import { describe, expect, test } from "vitest";
import type { AvatarComponent } from "../contracts.ts";
import { Avatar, AVATAR_EVERY_MS, RETRY_MS, rgba } from "./avatar.ts";

const head = (x: number): AvatarComponent => ({ name: "headset", position: [x, 0, 0], rotation: [0, 0, 0, 1] });
const due = (avatar: Avatar, now: number) => avatar.due(now, "p1", "Ada", "#ff8000")?.["avatar.p1"] as { components: unknown[] } | undefined;

describe("our avatar", () => {
  test("says who and where we are", () => {
    const avatar = new Avatar();
    avatar.place([head(1)]);
    expect(due(avatar, 0)).toEqual({ playerid: "p1", name: "Ada", color: [1, 128 / 255, 0, 1], components: [head(1)] });
  });

  test("is written when something is another, and not too often", () => {
    const avatar = new Avatar();
    expect(due(avatar, 0)).toBeDefined();
    expect(due(avatar, 5000)).toBeUndefined();
    avatar.place([head(1)]);
    expect(due(avatar, 5000)).toBeDefined();
    avatar.place([head(2)]);
    expect(due(avatar, 5000 + AVATAR_EVERY_MS / 2)).toBeUndefined();
    expect(due(avatar, 5001 + AVATAR_EVERY_MS)?.components).toEqual([head(2)]);
    avatar.place([head(2.0001)]);
    expect(due(avatar, 9000)).toBeUndefined();
  });

  test("is written again for a new connection", () => {
    const avatar = new Avatar();
    due(avatar, 0);
    avatar.startOver();
    expect(due(avatar, 1)).toBeDefined();
  });

  test("that is refused again and again means that we may only watch, until it is there", () => {
    const avatar = new Avatar();
    due(avatar, 0);
    expect(avatar.told(false)).toBe(false);
    expect(avatar.watching).toBe(false);
    expect(due(avatar, RETRY_MS - 1)).toBeUndefined();
    expect(due(avatar, RETRY_MS)).toBeDefined();
    expect(avatar.told(false)).toBe(true);
    expect(avatar.watching).toBe(true);
    expect(due(avatar, 2 * RETRY_MS)).toBeDefined();
    expect(avatar.told(true)).toBe(true);
    expect(avatar.watching).toBe(false);
    expect(due(avatar, 9 * RETRY_MS)).toBeUndefined();
  });
});

test("colours", () => {
  expect(rgba("#000000")).toEqual([0, 0, 0, 1]);
  expect(rgba("red")).toEqual([0.5, 0.5, 0.5, 1]);
});
