import { beforeEach, describe, expect, it } from "vitest";
import type { Point } from "./drag.ts";
import { frameOf } from "./frame.fixture.ts";
import { Grabs } from "./grabs.ts";
import { MAX_PULLS, Pulls } from "./pulls.ts";
import { FakeSession } from "./session.fixture.ts";

const pullOf = (more: Record<string, unknown> = {}) => ({ position: [1, 2, 3], particles: [0], interaction_type: "spring", ...more });
const points = [[0, 0, 0], [1, 0, 0], [2, 0, 0]];
const positionOf = (particle: number, out: Point): Point => {
  [out[0], out[1], out[2]] = points[particle] as Point;
  return out;
};

let session: FakeSession;
let grabs: Grabs;
let pulls: Pulls;

beforeEach(() => {
  session = new FakeSession();
  const settings = { law: "spring", scale: 1, target: "atom", resetVelocities: false } as const;
  grabs = new Grabs(session, () => settings, { newId: () => "own", onRefused: () => {}, onChange: () => {} });
  pulls = new Pulls(session, grabs);
});

describe("pulls of others", () => {
  it("are those in the state", () => {
    session.state.set("interaction.a", pullOf({ "owner.id": "bob", label: "Bob" }));
    session.state.set("avatar.bob", {});
    expect(pulls.refresh()).toBe(true);
    expect(pulls.list).toHaveLength(1);
    expect(pulls.list[0]).toMatchObject({ id: "a", owner: "bob", label: "Bob", own: false, particles: [0], law: "spring" });
  });

  it("go when they are gone", () => {
    session.state.set("interaction.a", pullOf());
    pulls.refresh();
    session.state.clear();
    expect(pulls.refresh()).toBe(true);
    expect(pulls.list).toEqual([]);
  });

  it("move without being others", () => {
    session.state.set("interaction.a", pullOf());
    pulls.refresh();
    const { list } = pulls;
    session.state.set("interaction.a", pullOf({ position: [4, 5, 6] }));
    expect(pulls.refresh()).toBe(false);
    expect(pulls.list).toBe(list);
    expect(pulls.list[0]?.told).toEqual([4, 5, 6]);
  });

  it("reach across the boundary of a box, not through all of it", () => {
    const box = new Float32Array([3, 0, 0, 0, 3, 0, 0, 0, 3]);
    session.state.set("interaction.a", pullOf({ particles: [2], position: [3.25, 0.25, 2.75] }));
    pulls.refresh();
    pulls.tick(16, frameOf(points), positionOf);
    expect(pulls.list[0]?.tip).toEqual([3.25, 0.25, 2.75]);
    session.state.set("interaction.a", pullOf({ particles: [0], position: [2.75, 0.25, 2.75] }));
    pulls.refresh();
    pulls.tick(1e6, frameOf(points, { box }), positionOf);
    expect(pulls.list[0]?.tip).toEqual([-0.25, 0.25, -0.25]);
    expect(pulls.list[0]?.handle).toEqual([2.75, 0.25, 2.75]);
  });

  it("glide to where they are told to be", () => {
    session.state.set("interaction.a", pullOf({ position: [0, 0, 0] }));
    pulls.refresh();
    pulls.tick(16, frameOf(points), positionOf);
    session.state.set("interaction.a", pullOf({ position: [1, 0, 0] }));
    pulls.refresh();
    pulls.tick(16, frameOf(points), positionOf);
    const x = pulls.list[0]!.handle[0];
    expect(x).toBeGreaterThan(0.1);
    expect(x).toBeLessThan(0.9);
    for (let i = 0; i < 60; i++) pulls.tick(16, frameOf(points), positionOf);
    expect(pulls.list[0]!.handle[0]).toBeCloseTo(1, 4);
  });

  it("are left out where they make no sense", () => {
    const nonsense = [null, 3, "x", [], {}, pullOf({ position: [1, 2] }), pullOf({ position: [1, 2, Number.NaN] }), pullOf({ particles: [] }),
      pullOf({ particles: [-1] }), pullOf({ particles: [1.5] }), pullOf({ particles: "0" }), pullOf({ position: [1e9, 0, 0] })];
    nonsense.forEach((value, i) => session.state.set(`interaction.${i}`, value));
    pulls.refresh();
    expect(pulls.list).toEqual([]);
  });

  it("are not shown where the system lacks their particles", () => {
    session.state.set("interaction.a", pullOf({ particles: [99] }));
    pulls.refresh();
    pulls.tick(16, frameOf(points), positionOf);
    expect(pulls.list[0]?.shown).toBe(false);
    pulls.tick(16, null, positionOf);
    expect(pulls.list[0]?.shown).toBe(false);
  });

  it("are so many at most", () => {
    for (let i = 0; i < 1000; i++) session.state.set(`interaction.${i}`, pullOf());
    pulls.refresh();
    expect(pulls.list).toHaveLength(MAX_PULLS);
  });
});

describe("our own pulls", () => {
  it("are there at once, where we hold them, whatever the state says by now", () => {
    grabs.begin("mouse", { particles: [1], resetVelocities: false }, [7, 8, 9], 0);
    expect(pulls.refresh()).toBe(true);
    expect(pulls.list[0]).toMatchObject({ id: "own", own: true, owner: "me" });
    session.state.set("interaction.own", pullOf({ position: [0, 0, 0] }));
    pulls.refresh();
    pulls.tick(16, frameOf(points), positionOf);
    expect(pulls.list).toHaveLength(1);
    expect(pulls.list[0]?.handle).toEqual([7, 8, 9]);
    expect(pulls.list[0]?.centre).toEqual([1, 0, 0]);
  });

  it("are gone at once when let go of, whatever the state says by now", () => {
    grabs.begin("mouse", { particles: [1], resetVelocities: false }, [7, 8, 9], 0);
    grabs.tick(0);
    pulls.refresh();
    session.takes = false;
    grabs.end("mouse");
    expect(pulls.refresh()).toBe(true);
    expect(pulls.list).toEqual([]);
  });
});

describe("forces", () => {
  it("are the sum of what the frame reports on a pull's particles", () => {
    session.state.set("interaction.a", pullOf({ particles: [0, 2] }));
    session.state.set("interaction.b", pullOf({ particles: [1] }));
    pulls.refresh();
    const forces = { userForceIndices: new Uint32Array([2, 0, 77]), userForces: new Float32Array([1, 2, 3, 10, 20, 30, 5, 5, 5]) };
    pulls.tick(16, frameOf(points, forces), positionOf);
    expect(pulls.list.map((pull) => pull.force)).toEqual([[11, 22, 33], [0, 0, 0]]);
    pulls.tick(16, frameOf(points, { serial: 2 }), positionOf);
    expect(pulls.list.map((pull) => pull.force)).toEqual([[0, 0, 0], [0, 0, 0]]);
  });
});
