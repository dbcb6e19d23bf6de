import { beforeEach, describe, expect, it } from "vitest";
import type { PullSettings } from "../contracts.ts";
import { Grabs, randomId, REFUSED_AFTER_MS } from "./grabs.ts";
import { FakeSession } from "./session.fixture.ts";

const target = (...particles: number[]) => ({ particles, resetVelocities: false });

let session: FakeSession;
let settings: PullSettings;
let refused: string[];
let grabs: Grabs;

beforeEach(() => {
  session = new FakeSession();
  settings = { law: "spring", scale: 100, target: "atom", resetVelocities: false };
  refused = [];
  let count = 0;
  grabs = new Grabs(session, () => settings, {
    newId: () => `id${count++}`,
    onRefused: (sentence) => refused.push(sentence),
    onChange: () => {},
  });
});

describe("a grab", () => {
  it("is an interaction of the shared state", () => {
    expect(grabs.begin("mouse", target(4, 5), [1, 2, 3], 0)).toBe(true);
    grabs.tick(0);
    expect(Object.fromEntries(session.state)).toEqual({
      "interaction.id0": {
        position: [1, 2, 3],
        particles: [4, 5],
        interaction_type: "spring",
        scale: 100,
        mass_weighted: true,
        reset_velocities: false,
        max_force: 20000,
        "owner.id": "me",
        label: "Ada",
      },
    });
  });

  it("is gone when let go of", () => {
    grabs.begin("mouse", target(4), [0, 0, 0], 0);
    grabs.tick(0);
    grabs.end("mouse");
    expect(session.state.size).toBe(0);
    expect(grabs.size).toBe(0);
  });

  it("is written once per animation frame at most, and not while it is still", () => {
    grabs.begin("mouse", target(4), [0, 0, 0], 0);
    for (let i = 1; i <= 5; i++) grabs.move("mouse", [i, 0, 0]);
    grabs.tick(0);
    expect(session.writes).toHaveLength(1);
    expect(session.state.get("interaction.id0")).toMatchObject({ position: [5, 0, 0] });
    for (let i = 1; i <= 10; i++) grabs.tick(i * 16);
    grabs.move("mouse", [5, 0, 0]);
    grabs.tick(200);
    expect(session.writes).toHaveLength(1);
    expect(session.state.has("interaction.id0")).toBe(true);
  });

  it("of a large group is written less often", () => {
    grabs.begin("mouse", target(...Array.from({ length: 10_000 }, (_, i) => i)), [0, 0, 0], 0);
    for (let i = 0; i < 60; i++) {
      grabs.move("mouse", [i, 0, 0]);
      grabs.tick(i * 16);
    }
    expect(session.writes.length).toBeGreaterThan(5);
    expect(session.writes.length).toBeLessThan(12);
  });

  it("takes new settings while it is held", () => {
    grabs.begin("mouse", target(4), [0, 0, 0], 0);
    grabs.tick(0);
    settings.law = "gaussian";
    settings.scale = 7;
    settings.resetVelocities = true;
    grabs.tick(16);
    expect(session.state.get("interaction.id0")).toMatchObject({ interaction_type: "gaussian", scale: 7, reset_velocities: true });
  });

  it("has velocities reset where the selection asks for it", () => {
    grabs.begin("mouse", { particles: [1], resetVelocities: true }, [0, 0, 0], 0);
    grabs.tick(0);
    expect(session.state.get("interaction.id0")).toMatchObject({ reset_velocities: true });
  });

  it("holds one thing for each pointer, and several pointers hold several", () => {
    grabs.begin("left", target(1), [0, 0, 0], 0);
    grabs.begin("right", target(2), [0, 0, 0], 0);
    grabs.tick(0);
    expect([...session.state.keys()]).toEqual(["interaction.id0", "interaction.id1"]);
    expect(session.writes).toHaveLength(1);
    grabs.begin("left", target(3), [0, 0, 0], 0);
    grabs.tick(16);
    expect([...session.state.keys()]).toEqual(["interaction.id1", "interaction.id2"]);
    grabs.endAll();
    expect(session.state.size).toBe(0);
  });

  it("that is let go of before it is due leaves no trace", () => {
    grabs.begin("finger", target(1), [0, 0, 0], 0, 150);
    grabs.tick(100);
    grabs.end("finger");
    grabs.tick(200);
    expect(session.writes).toHaveLength(0);
  });

  it("is not where there is nothing to hold, or no session", () => {
    expect(grabs.begin("mouse", target(), [0, 0, 0], 0)).toBe(false);
    session.status = { kind: "lost", reason: "gone", retryInMs: 1 };
    expect(grabs.begin("mouse", target(1), [0, 0, 0], 0)).toBe(false);
    expect(grabs.size).toBe(0);
  });

  it("never writes a place that is none", () => {
    grabs.begin("mouse", target(1), [0, 0, 0], 0);
    grabs.move("mouse", [Number.NaN, 0, 0]);
    grabs.move("mouse", [0, Number.POSITIVE_INFINITY, 0]);
    grabs.tick(0);
    expect(session.state.get("interaction.id0")).toMatchObject({ position: [0, 0, 0] });
  });
});

describe("a grab that the session does not take", () => {
  it("is let go of, with a word why, after a while", () => {
    session.takes = false;
    grabs.begin("mouse", target(1), [0, 0, 0], 0);
    grabs.tick(0);
    grabs.onState();
    grabs.tick(REFUSED_AFTER_MS - 1);
    expect(refused).toEqual([]);
    grabs.tick(REFUSED_AFTER_MS);
    expect(refused).toHaveLength(1);
    expect(grabs.size).toBe(0);
    expect(session.writes.at(-1)?.removals).toEqual(["interaction.id0"]);
  });

  it("does not begin for those who may only watch", () => {
    session.watching = true;
    expect(grabs.begin("mouse", target(1), [0, 0, 0], 0)).toBe(false);
    expect(refused).toHaveLength(1);
    expect(session.writes).toHaveLength(0);
  });

  it("is let go of when it is taken away, with a word", () => {
    grabs.begin("mouse", target(1), [0, 0, 0], 0);
    grabs.tick(0);
    grabs.onState();
    session.state.clear();
    grabs.onState();
    expect(grabs.size).toBe(0);
    expect(refused).toHaveLength(1);
  });

  it("says nothing while it arrives late but in time", () => {
    session.takes = false;
    grabs.begin("mouse", target(1), [0, 0, 0], 0);
    grabs.tick(0);
    session.state.set("interaction.id0", {});
    grabs.onState();
    grabs.tick(REFUSED_AFTER_MS * 10);
    expect(refused).toEqual([]);
    expect(grabs.size).toBe(1);
  });

  it("says nothing of what went with the connection", () => {
    grabs.begin("mouse", target(1), [0, 0, 0], 0);
    grabs.tick(0);
    grabs.onState();
    session.status = { kind: "lost", reason: "gone", retryInMs: 1 };
    session.state.clear();
    grabs.onState();
    expect(refused).toEqual([]);
  });
});

describe("a removal", () => {
  it("is sent again where the key stays in the state", () => {
    grabs.begin("mouse", target(1), [0, 0, 0], 0);
    grabs.tick(0);
    session.takes = false;
    grabs.end("mouse", 10);
    expect(grabs.isReleased("id0")).toBe(true);
    grabs.tick(100);
    expect(session.writes).toHaveLength(2);
    session.takes = true;
    grabs.tick(10 + REFUSED_AFTER_MS);
    expect(session.state.size).toBe(0);
    grabs.onState();
    expect(grabs.isReleased("id0")).toBe(false);
  });
});

it("ids are version 4 UUIDs, each another", () => {
  const ids = Array.from({ length: 100 }, randomId);
  for (const id of ids) expect(id).toMatch(/^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/);
  expect(new Set(ids).size).toBe(100);
});
