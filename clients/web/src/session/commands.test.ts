import { expect, test } from "vitest";
import { CommandCalls } from "./commands.ts";
import { commandProblem } from "./socket.ts";

test("answers come to those who asked", async () => {
  const calls = new CommandCalls(1000);
  const [one, two] = [calls.ask("playback/list", {}, 0), calls.ask("playback/load", { index: 2 }, 0)];
  expect(two.message).toEqual({ request: { name: "playback/load", arguments: { index: 2 }, id: 2 } });
  calls.answered({ request: two.message.request, response: null });
  calls.answered({ request: one.message.request, response: { simulations: ["a"] } });
  expect(await one.answer).toEqual({ simulations: ["a"] });
  expect(await two.answer).toEqual({});
});

test("failures, too", async () => {
  const calls = new CommandCalls(1000);
  const { message, answer } = calls.ask("playback/load", {}, 0);
  calls.answered({ request: message.request, exception: "index is 9: there are 2" });
  await expect(answer).rejects.toThrow("index is 9");
});

test("what answers nobody's request, or is a request itself, is passed over", async () => {
  const calls = new CommandCalls(1000);
  const { message, answer } = calls.ask("x", {}, 0);
  calls.answered({ request: { id: 77 }, response: null });
  calls.answered({ request: { id: "1" }, response: null });
  calls.answered({ request: message.request });
  calls.answered({});
  calls.answered({ request: message.request, response: { ok: true } });
  expect(await answer).toEqual({ ok: true });
});

test("commands are not waited for for ever", async () => {
  const calls = new CommandCalls(1000);
  const { answer } = calls.ask("slow", {}, 0);
  calls.expire(999);
  calls.expire(1000);
  await expect(answer).rejects.toThrow("“slow” was not answered in 1 s.");
});

test("a lost connection fails them all", async () => {
  const calls = new CommandCalls(1000);
  const answers = [calls.ask("a", {}, 0).answer, calls.ask("b", {}, 0).answer];
  calls.failAll("gone");
  for (const answer of answers) await expect(answer).rejects.toThrow("gone");
});

test("a role that does not allow a command is said in other words", () => {
  expect(commandProblem("running 'playback/play' needs the role participant, and yours is viewer; ask a host")).toMatch(/^Your role/);
  expect(commandProblem("index is 9: there are 2")).toBe("Index is 9: there are 2.");
});
