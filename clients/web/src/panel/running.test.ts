import { beforeEach, expect, test } from "vitest";
import type { Frame } from "../contracts.ts";
import { Progress, Running } from "./running.ts";

const at = (time: number): Frame => ({ serial: time, values: { "system.simulation.time": time } }) as unknown as Frame;

let running: Running;

beforeEach(() => {
  running = new Running();
});

test("a simulation runs while its time changes", () => {
  const progress = new Progress(1000);
  expect(progress.runs(null, 0)).toBe(false);
  expect(progress.runs(at(1), 10)).toBe(false);
  expect(progress.runs(at(2), 20)).toBe(true);
  expect(progress.runs(at(2), 900)).toBe(true);
  expect(progress.runs(at(2), 1030)).toBe(false);
});

test("what is not known is asked for, and then shown as told", () => {
  expect(running.look(at(1), 0)).toBe(null);
  expect(running.asks(0)).toBe(true);
  expect(running.asks(100)).toBe(false);
  running.told(true);
  expect(running.look(at(1), 200)).toBe(true);
});

test("frames that say otherwise are asked about, and not believed at once", () => {
  running.told(false);
  running.look(at(1), 0);
  expect(running.look(at(2), 10)).toBe(false); // one step
  expect(running.asks(1000)).toBe(true);
  running.told(false);
  expect(running.look(at(2), 3000)).toBe(false);
  expect(running.asks(3000)).toBe(false);
});

test("a simulation that is slow still plays", () => {
  running.told(true);
  running.look(at(1), 0);
  expect(running.look(at(1), 9000)).toBe(true);
});

test("what was pressed is shown until it is so, or has had its time", () => {
  running.told(true);
  running.mean(false, 0);
  expect(running.look(at(1), 10)).toBe(false);
  expect(running.look(at(1), 1600)).toBe(true);
  running.mean(false, 2000);
  running.failed();
  expect(running.look(at(1), 2010)).toBe(true);
});

test("a server that cannot answer is not asked again, and frames have to do", () => {
  running.look(at(1), 0);
  running.unanswered();
  expect(running.look(at(2), 10)).toBe(true);
  expect(running.asks(9000)).toBe(false);
  running.forget();
  expect(running.look(at(2), 20)).toBe(null);
  expect(running.asks(20)).toBe(true);
});
