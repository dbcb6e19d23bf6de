import { describe, expect, test } from "vitest";
import { backoffMs, LONGEST_MS } from "./backoff.ts";
import { endingOf, sentence } from "./reasons.ts";

describe("endings", () => {
  test.each([
    ["join_code is wrong; ask a host of the session for it", "This code is not right. Ask whoever runs the session for it."],
    ["password is wrong; ask a host of the session for it", "This code is not right. Ask whoever runs the session for it."],
    ["the session 'default' lets nobody in as a guest: ask a host to let guests in with `narupa lobby guests parti...", "This session asks for a code. Ask whoever runs it, and type it in here."],
    ["you were removed from the session: kicked by host", "A host has removed you from the session."],
    ["too many wrong attempts (join code) from this address; try again in 27 s", "There were too many wrong codes from here. Try again in 27 s."],
    ["the session 'default' is full with 12 users; try again later", "The session is full: 12 people are in it. Try again later."],
    ["code is '***': give it once, with at most 200 characters", "This link is not right. Ask whoever sent it for another."],
    ["the session has ended: its host closed it", "The session has ended."],
  ])("%s", (reason, words) => {
    expect(endingOf(1008, reason, true)).toMatchObject({ reason: words, again: false });
  });

  test("that pass are waited for by whoever was in", () => {
    expect(endingOf(1013, "the session 'default' is full with 2 users; try again later", true)).toMatchObject({ again: false, passes: true });
    expect(endingOf(1008, "join_code is wrong; ask a host", true)).toMatchObject({ again: false, passes: false });
  });

  test("that are for now are tried again", () => {
    expect(endingOf(1001, "the gateway is stopping; connect again in a moment", true)).toMatchObject({
      reason: "The gateway is stopping; connect again in a moment.",
      again: true,
    });
    expect(endingOf(1013, "the lobby cannot be reached", true).again).toBe(true);
    expect(endingOf(1006, "", true)).toMatchObject({ reason: "The connection to the server was lost.", again: true });
    expect(endingOf(1006, "", false).reason).toMatch(/cannot be reached/);
  });

  test("of those that are not let in are final, whatever the words", () => {
    expect(endingOf(1008, "", true)).toMatchObject({ reason: "The server has refused the connection.", again: false });
    expect(endingOf(1008, "something new", true)).toMatchObject({ reason: "Something new.", again: false });
  });

  test("that ask for a password say so", () => {
    expect(endingOf(1008, "password is missing: the session 'x' asks for one instead of a join code", true).wantsPassword).toBe(true);
    expect(endingOf(1008, "join_code is wrong; ask a host", true).wantsPassword).toBe(false);
  });
});

test("sentences begin and end as such", () => {
  expect(sentence(" is it? ")).toBe("Is it?");
  expect(sentence("cut off...")).toBe("Cut off...");
  expect(sentence("")).toBe("");
});

test("waits grow up to a bound, and are spread out", () => {
  const longest = [1, 2, 3, 4, 5, 6, 1000].map((attempt) => backoffMs(attempt, 1));
  expect(longest).toEqual([500, 1000, 2000, 4000, 8000, LONGEST_MS, LONGEST_MS]);
  expect(backoffMs(3, 0)).toBe(1000);
});
