import { expect, test } from "vitest";
import type { ConnectionStatus, Session } from "../contracts.ts";
import { canBeReset, connectionWords, exceptionWords } from "./trouble.ts";

const having = (status: ConnectionStatus, exception?: unknown) =>
  ({ status, frame: { values: exception === undefined ? {} : { "system.simulation.exception": exception } } }) as unknown as Session;

test("a connection that is well is not spoken of", () => {
  expect(connectionWords(having({ kind: "open" }))).toBe("");
  expect(connectionWords(having({ kind: "connecting", attempt: 0 }))).toBe("");
  expect(connectionWords(having({ kind: "lost", reason: "It is gone.", retryInMs: 1 }))).toBe("It is gone. Trying again…");
  expect(connectionWords(having({ kind: "connecting", attempt: 2 }))).toMatch(/again/);
});

test("what services say is said for people", () => {
  const nameOf = (id: string) => (id === "u1" ? "Bob" : "");
  const words = (exception?: unknown) => exceptionWords(having({ kind: "open" }, exception), nameOf);
  const said = (owner: string) =>
    `interaction 82-f of ${owner} made the simulation blow up at 1.000 ps and has been taken out of it (Particle coordinate is NaN.  For more information, see https://docs/FAQ#nan); playback/play goes on without it, playback/reset starts over`;
  const rest = "made the simulation blow up at 1.000 ps and has been taken out of it (Particle coordinate is NaN.); Play goes on without it, Reset starts over.";
  expect(words(said("u1"))).toBe(`A pull of Bob ${rest}`);
  expect(words(said("u2"))).toBe(`A pull of somebody ${rest}`);
  expect(words(3)).toBe("");
  expect(words()).toBe("");
  expect(words("x".repeat(900))).toHaveLength(501);
});

test("a reset is of use to what has failed, not to what waits", () => {
  expect(canBeReset("The engine has died.")).toBe(true);
  expect(canBeReset("The lobby does not answer, so the simulation waits: another replica may have to go on with it.")).toBe(false);
});
