import { describe, expect, it } from "vitest";
import { renderingHints, selectionsChanged } from "./selections.ts";

function selection(properties: Record<string, unknown>, particles: unknown = [1, 2]): unknown {
  return { id: "selection.a", name: "a", selected: { particle_ids: particles }, properties };
}

function hintsOf(value: unknown): ReturnType<typeof renderingHints> {
  return renderingHints(new Map([["selection.a", value]]));
}

describe("renderingHints", () => {
  it.each([
    ["ball and stick", "ball and stick"],
    ["liquorice", "liquorice"],
    ["noodles", "liquorice"],
    ["goodsell", "spheres"],
    ["cycles", "liquorice"],
    ["spline", "ribbon"],
    ["geometric spline", "ribbon"],
    ["Cartoon", "ribbon"],
    ["hyperballs", "ball and stick"],
  ])("draws the preset %s as %s", (preset, representation) => {
    expect(hintsOf(selection({ "narupa.rendering.renderer": preset }))[0]?.representation).toBe(representation);
    expect(hintsOf(selection({ "nanover.rendering.renderer": preset }))[0]?.representation).toBe(representation);
  });

  it("reads renderers that are made up of parts", () => {
    const [hint] = hintsOf(selection({ "nanover.rendering.renderer": { render: "liquorice", color: "#ff8000" } }));
    expect(hint).toEqual({ particles: [1, 2], hide: false, representation: "liquorice", color: 0xff8000 });
    const [other] = hintsOf(selection({ "nanover.rendering.renderer": { render: { type: "goodsell" }, color: [1, 0, 0] } }));
    expect(other?.color).toBe(0xff0000);
    expect(hintsOf(selection({ "nanover.rendering.renderer": { color: { type: "cpk" } } }))[0]?.color).toBe("element");
  });

  it("hides, and means everything where no particles are named", () => {
    expect(hintsOf(selection({ "nanover.rendering.hide": true }, null))).toEqual([
      { particles: null, hide: true, representation: null, color: null },
    ]);
  });

  it("lays the root under the others, which follow by key", () => {
    const state = new Map<string, unknown>([
      ["selection.b", selection({ "narupa.rendering.hide": true }, [2])],
      ["selection.a", selection({ "narupa.rendering.hide": true }, [1])],
      ["selection.root", selection({ "narupa.rendering.renderer": "liquorice" }, null)],
      ["scene", [0, 0, 0]],
    ]);
    expect(renderingHints(state).map((hint) => hint.particles)).toEqual([null, [1], [2]]);
  });

  it.each([null, 7, "text", [], {}, { properties: 3 }, { properties: { "narupa.rendering.renderer": "constructor" } }])(
    "makes nothing of %j",
    (value) => expect(hintsOf(value)).toEqual([]),
  );

  it("passes over ids that are none", () => {
    const [hint] = hintsOf(selection({ "narupa.rendering.hide": true }, [1, -1, 2.5, "3", null, 4]));
    expect(hint?.particles).toEqual([1, 4]);
  });
});

describe("selectionsChanged", () => {
  it("looks at selections alone", () => {
    const known = new Map<string, unknown>();
    const one = selection({});
    const state = new Map<string, unknown>([["selection.a", one], ["avatar.b", {}]]);
    expect(selectionsChanged(state, known)).toBe(true);
    expect(selectionsChanged(state, known)).toBe(false);
    state.set("avatar.b", { name: "b" });
    expect(selectionsChanged(state, known)).toBe(false);
    state.set("selection.a", selection({}));
    expect(selectionsChanged(state, known)).toBe(true);
    state.delete("selection.a");
    expect(selectionsChanged(state, known)).toBe(true);
    expect(known.size).toBe(0);
  });
});
