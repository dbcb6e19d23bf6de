import { expect, it } from "vitest";
import { Twist } from "./twist.ts";

it("turns with fingers that mean it, whichever way round", () => {
  const twist = new Twist();
  expect(twist.by(0, 0.1)).toBe(0);
  expect(twist.by(0.1, 0.2)).toBeCloseTo(0.1);
  expect(twist.by(Math.PI - 0.05, -Math.PI + 0.05)).toBeCloseTo(0.1);
  twist.reset();
  expect(twist.by(0, -0.1)).toBe(0);
  expect(twist.by(-0.1, -0.3)).toBeCloseTo(-0.2);
});
