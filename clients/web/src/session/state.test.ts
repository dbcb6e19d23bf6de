import { expect, test } from "vitest";
import { StateCopy } from "./state.ts";
import { WriteBuffer } from "./writes.ts";

test("changes are told apart from none", () => {
  const state = new StateCopy();
  expect(state.apply({ a: 1, b: 2 }, [])).toBe(true);
  expect(state.apply({}, ["b", "c"])).toBe(true);
  expect(state.apply({}, ["b"])).toBe(false);
  expect([...state.values]).toEqual([["a", 1]]);
});

test("after a new connection nothing stays that is not said again", () => {
  const state = new StateCopy();
  state.apply({ a: 1, b: 2 }, []);
  state.startOver();
  expect(state.values.get("a")).toBe(1);
  expect(state.apply({}, [])).toBe(true);
  expect(state.values.size).toBe(0);
});

test("of one key the last write counts", () => {
  const writes = new WriteBuffer();
  writes.add({ a: 1, b: 1 });
  writes.add({ a: 2 }, ["b"]);
  writes.add({ c: 1 }, []);
  writes.add({}, ["c"]);
  writes.add({ c: 3 });
  expect(writes.take()).toEqual({ updates: { a: 2, c: 3 }, removals: ["b"] });
  expect(writes.empty).toBe(true);
});

test("removals outlive what cannot be sent", () => {
  const writes = new WriteBuffer();
  writes.add({ a: 1 }, ["b"]);
  writes.dropUpdates();
  expect(writes.take()).toEqual({ updates: {}, removals: ["b"] });
});
