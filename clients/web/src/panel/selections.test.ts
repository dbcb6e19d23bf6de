import { expect, test } from "vitest";
import { changed, freeName, newSelection, selectionsOf } from "./selections.ts";

const RING = {
  id: "selection.a",
  name: "Ring",
  selected: { particle_ids: [3, 1, -1, "x", 1.5] },
  properties: { "nanover.interaction.method": "none", "nanover.rendering.renderer": { render: "goodsell", color: "#ff0000", scale: 2 }, mine: 7 },
};
const only = (value: unknown) => selectionsOf(new Map([["selection.a", value]]))[0]!;

test("every selection is listed, that of everything first", () => {
  const state = new Map<string, unknown>([
    ["selection.b", { name: "Zinc", selected: { particle_ids: [] } }],
    ["selection.a", RING],
    ["selection.root", { selected: { particle_ids: null }, properties: { "narupa.rendering.hide": true } }],
    ["selection.bad", 3],
    ["scene", {}],
  ]);
  expect(selectionsOf(state)).toEqual([
    { key: "selection.root", name: "Everything", particles: null, hidden: true, shape: "", color: "", grabbed: "single" },
    { key: "selection.a", name: "Ring", particles: [3, 1], hidden: false, shape: "goodsell", color: "#ff0000", grabbed: "none" },
    { key: "selection.b", name: "Zinc", particles: [], hidden: false, shape: "", color: "", grabbed: "single" },
  ]);
});

test("a new one is what clients of every family read", () => {
  const { key, value } = newSelection("x", " Ring ", [1, 2]);
  expect(key).toBe("selection.x");
  expect(value).toEqual({
    id: "selection.x",
    name: "Ring",
    selected: { particle_ids: [1, 2] },
    properties: {
      "narupa.interaction.method": "group",
      "nanover.interaction.method": "group",
      "narupa.interaction.velocity_reset": false,
      "nanover.interaction.velocity_reset": false,
      "narupa.rendering.hide": false,
      "nanover.rendering.hide": false,
    },
  });
});

test("a change leaves the rest as it was", () => {
  const hidden = changed(RING, { hidden: true });
  expect(hidden).toMatchObject({ id: "selection.a", name: "Ring", selected: RING.selected });
  expect(hidden["properties"]).toMatchObject({ ...RING.properties, "narupa.rendering.hide": true, "nanover.rendering.hide": true });
  expect(only(changed(hidden, { hidden: false, grabbed: "group" }))).toMatchObject({ hidden: false, grabbed: "group", shape: "goodsell" });
});

test.each([
  ["goodsell", { color: "#00ff00" }, { render: "goodsell", color: "#00ff00" }],
  [undefined, { color: "#00ff00" }, { color: "#00ff00" }],
  [undefined, { shape: "cartoon" }, "cartoon"],
  [{ render: "liquorice", color: "red" }, { color: "" }, "liquorice"],
  [{ render: "liquorice", color: "red" }, { shape: "" }, { color: "red" }],
  [{ render: "liquorice", color: "red", scale: 2 }, { shape: "", color: "" }, { scale: 2 }],
  [{ render: { type: "noodles" }, color: { type: "cpk" } }, { shape: "cartoon" }, { render: "cartoon", color: { type: "cpk" } }],
  ["cartoon", { shape: "" }, undefined],
])("of %j, %j makes %j", (renderer, change, made) => {
  const properties = renderer === undefined ? {} : { "narupa.rendering.renderer": renderer };
  const value = changed({ properties }, change)["properties"] as Record<string, unknown>;
  expect(value["narupa.rendering.renderer"]).toEqual(made);
  expect(value["nanover.rendering.renderer"]).toEqual(made);
});

test("a name is proposed that is free", () => {
  const named = (name: string) => ({ ...only(RING), name });
  expect(freeName([])).toBe("Selection 1");
  expect(freeName([named("Selection 2"), named("Selection 1")])).toBe("Selection 3");
});
