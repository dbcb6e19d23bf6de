import { describe, expect, it } from "vitest";
import { frameOf } from "./frame.fixture.ts";
import { residueOf, targetOf } from "./targets.ts";

const frame = frameOf(
  Array.from({ length: 8 }, (_, i) => [i, 0, 0]),
  { residues: new Uint32Array([0, 0, 0, 1, 1, 2, 2, 2]) },
);
const state = (entries: Record<string, unknown>) => new Map(Object.entries(entries));
const selection = (particles: unknown, properties: Record<string, unknown> = {}) => ({
  id: "x",
  name: "x",
  selected: { particle_ids: particles },
  properties,
});

describe("a residue", () => {
  it("is all its particles", () => expect(residueOf(4, frame)).toEqual([3, 4]));
  it("is the particle alone where there are none", () => expect(residueOf(4, frameOf([[0], [0], [0], [0], [0]]))).toEqual([4]));
});

describe("what is grabbed", () => {
  it("is the atom", () => expect(targetOf(4, frame, state({}), "atom").particles).toEqual([4]));
  it("is the residue", () => expect(targetOf(6, frame, state({}), "residue").particles).toEqual([5, 6, 7]));

  it("is the smallest selection that the particle is in", () => {
    const some = state({
      "selection.root": selection(null),
      "selection.a": selection([0, 1, 2, 3]),
      "selection.b": selection([3, 2]),
      "selection.c": selection([7]),
    });
    expect(targetOf(3, frame, some, "selection").particles).toEqual([2, 3]);
    expect(targetOf(0, frame, some, "selection").particles).toEqual([0, 1, 2, 3]);
  });

  it("is the atom where no selection but the root has it", () => {
    expect(targetOf(5, frame, state({ "selection.root": selection(null) }), "selection").particles).toEqual([5]);
    expect(targetOf(5, frame, state({}), "selection").particles).toEqual([5]);
  });

  it("is nothing where a selection forbids it, whichever prefix says so", () => {
    for (const prefix of ["narupa.", "nanover."]) {
      const some = state({ "selection.a": selection([1], { [`${prefix}interaction.method`]: "none" }) });
      for (const kind of ["atom", "residue", "selection"] as const) {
        expect(targetOf(1, frame, some, kind).particles).toEqual([]);
        expect(targetOf(2, frame, some, kind).particles).not.toEqual([]);
      }
    }
  });

  it("has its velocities reset where the selection asks for it", () => {
    const some = state({ "selection.a": selection([1], { "narupa.interaction.velocity_reset": true }) });
    expect(targetOf(1, frame, some, "atom").resetVelocities).toBe(true);
    expect(targetOf(2, frame, some, "atom").resetVelocities).toBe(false);
  });

  it("is nothing outside the frame", () => {
    for (const particle of [-1, 8, Number.NaN]) expect(targetOf(particle, frame, state({}), "atom").particles).toEqual([]);
  });

  it("takes no harm from nonsense in the state", () => {
    const nonsense = state({
      "selection.a": null,
      "selection.b": "text",
      "selection.c": { selected: 3 },
      "selection.d": { selected: { particle_ids: "all" } },
      "selection.e": selection([2, 2, -1, 99, 1.5, "2", null], { "narupa.interaction.method": 7 }),
      "selection.f": [],
    });
    expect(targetOf(2, frame, nonsense, "selection").particles).toEqual([2]);
    expect(targetOf(3, frame, nonsense, "selection").particles).toEqual([3]);
  });
});
