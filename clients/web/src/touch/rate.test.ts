import { expect, it } from "vitest";
import { RateLimit } from "./rate.ts";

it("lets things happen at most so often", () => {
  const limit = new RateLimit(10);
  const passed = Array.from({ length: 200 }, (_, i) => i * 5).filter((now) => limit.take(now));
  expect(passed).toEqual([0, 100, 200, 300, 400, 500, 600, 700, 800, 900]);
});

it("lets the next one through at once after a reset", () => {
  const limit = new RateLimit(1);
  expect(limit.take(0)).toBe(true);
  expect(limit.take(1)).toBe(false);
  limit.reset();
  expect(limit.take(2)).toBe(true);
});
