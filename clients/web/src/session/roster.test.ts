import { afterEach, beforeEach, expect, test, vi } from "vitest";
import type { Session } from "../contracts.ts";
import { NOBODY, rollOf, Roster } from "./roster.ts";

const SAID = {
  user: "u1",
  role: "host",
  people: [
    { id: "u1", name: "Ada", role: "host", avatars: ["p1"] },
    { id: "u2", name: "Bob", role: "viewer", avatars: [] },
  ],
};

let run: ReturnType<typeof vi.fn>;
let roster: Roster;
const changed = vi.fn();

beforeEach(() => {
  changed.mockClear();
  run = vi.fn(() => Promise.resolve(SAID));
  roster = new Roster({ status: { kind: "open" }, run } as unknown as Session, changed);
});

afterEach(() => vi.restoreAllMocks());

test("what the server says is taken for what it is", () => {
  expect(rollOf(SAID)).toEqual({ userId: "u1", role: "host", users: SAID.people });
  expect(rollOf({ user: 3, role: "king", people: [{ id: 4 }, null, "x", { id: "u", role: 1, avatars: 2 }] })).toEqual({
    userId: "",
    role: null,
    users: [{ id: "u", name: "", role: null, avatars: [] }],
  });
  expect(rollOf({})).toEqual(NOBODY);
});

test("it is asked for now and then, and at once where it may have changed", async () => {
  for (const now of [0, 500, 1999]) roster.look(now);
  expect(run).toHaveBeenCalledTimes(1);
  await vi.waitFor(() => expect(changed).toHaveBeenCalledTimes(1));
  expect(roster.roll.role).toBe("host");
  roster.look(2000);
  expect(run).toHaveBeenCalledTimes(2);
  await vi.waitFor(() => expect(changed).toHaveBeenCalledTimes(2));
  roster.refresh();
  roster.look(2001);
  expect(run).toHaveBeenCalledTimes(3);
});

test("a server that knows nothing of it is no trouble", async () => {
  run.mockImplementation(() => Promise.reject(new Error("unknown command")));
  roster.look(0);
  await Promise.resolve();
  expect(roster.roll).toBe(NOBODY);
});
