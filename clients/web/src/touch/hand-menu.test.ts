import { Euler, Matrix4, Quaternion, Vector3 } from "three";
import { describe, expect, it } from "vitest";
import { palmFacing } from "./hand.ts";
import { qualityFor } from "./headset.ts";
import { itemAt, MENU } from "./menu-layout.ts";
import { yawOf } from "./place.ts";
import { wrapped } from "./sign.ts";

const turned = (x: number, y: number, z: number) => new Quaternion().setFromEuler(new Euler(x, y, z, "YXZ"));
const at = (turn = new Quaternion(), position = new Vector3()) => new Matrix4().compose(position, turn, new Vector3(1, 1, 1));

describe("a palm", () => {
  it("of each hand looks inwards where the hand points ahead", () => {
    const between = new Vector3(0, 0, 0);
    expect(palmFacing(at(undefined, new Vector3(-0.3, 0, 0)), "left", between)).toBeCloseTo(1);
    expect(palmFacing(at(undefined, new Vector3(0.3, 0, 0)), "right", between)).toBeCloseTo(1);
    expect(palmFacing(at(), "left", new Vector3(0, 0, 1))).toBeCloseTo(0);
  });

  it("looks at the face where it is turned to it, whatever its size", () => {
    const face = new Vector3(0, 0, 1);
    expect(palmFacing(at(turned(0, -Math.PI / 2, 0)), "left", face)).toBeCloseTo(1);
    expect(palmFacing(at(turned(0, Math.PI / 2, 0)), "right", face)).toBeCloseTo(1);
    expect(palmFacing(at(turned(0, Math.PI / 2, 0)).scale(new Vector3(3, 3, 3)), "left", face)).toBeCloseTo(-1);
  });
});

describe("the menu's items", () => {
  it("are all within it, and none over another", () => {
    for (const [index, { x, y, width, height }] of MENU.entries()) {
      expect(Math.min(x, y)).toBeGreaterThanOrEqual(0);
      expect(Math.max(x + width, y + height)).toBeLessThanOrEqual(1);
      for (const [dx, dy] of [[0.01, 0.01], [0.99, 0.99], [0.01, 0.99], [0.5, 0.5]] as const) {
        expect(itemAt(x + dx * width, y + dy * height)).toBe(index);
      }
    }
  });

  it("are nowhere beside them", () => {
    for (const [x, y] of [[0, 0], [0.5, 0.01], [1.2, 0.5], [Number.NaN, 0.5]] as const) expect(itemAt(x, y)).toBe(-1);
  });
});

describe("where somebody looks", () => {
  it("is the same about the vertical whatever they look at up and down", () => {
    for (const yaw of [-2, 0, 0.7, 3]) for (const pitch of [-1.5, 0, 1.2]) expect(yawOf(at(turned(pitch, yaw, 0)))).toBeCloseTo(yaw);
  });
});

describe("a sentence in a headset", () => {
  it("is broken between its words", () => {
    expect(wrapped("The connection was lost. Trying again…", 16, 6)).toEqual(["The connection", "was lost. Trying", "again…"]);
    expect(wrapped("", 10, 3)).toEqual([]);
  });

  it("is never too wide or too high", () => {
    const lines = wrapped("x".repeat(1e5) + " y".repeat(1e5), 20, 4);
    expect(lines.length).toBeLessThanOrEqual(4);
    for (const line of lines) expect([...line].length).toBeLessThanOrEqual(20);
    expect(wrapped("a\n\u202eb", 20, 4)).toEqual(["a b"]);
  });
});

describe("how finely a headset draws", () => {
  it("gives way as systems grow", () => {
    let last = qualityFor(0);
    for (const particles of [1e3, 1e4, 1e5, 1e7]) {
      const next = qualityFor(particles);
      expect(next.scale).toBeLessThanOrEqual(last.scale);
      expect(next.foveation).toBeGreaterThanOrEqual(last.foveation);
      last = next;
    }
    expect(last).toEqual({ particles: Infinity, scale: 0.7, foveation: 1 });
  });
});
