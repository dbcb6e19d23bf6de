import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { Touch } from "../contracts.ts";
import { frameOf } from "./frame.fixture.ts";
import { createTouch } from "./index.ts";
import { FakeSession } from "./session.fixture.ts";
import { FakeView } from "./view.fixture.ts";

const ATOM = { clientX: 100, clientY: -100 }; // particle 1
const SPACE = { clientX: 350, clientY: 350 };

let session: FakeSession;
let view: FakeView;
let touch: Touch;
let refused: string[];
let now: number;
let page: EventTarget & { hidden: boolean };
let windowed: EventTarget;

beforeEach(() => {
  now = 1000;
  vi.spyOn(performance, "now").mockImplementation(() => now);
  page = Object.assign(new EventTarget(), { hidden: false });
  windowed = new EventTarget();
  vi.stubGlobal("window", windowed);
  vi.stubGlobal("document", page);
  vi.stubGlobal("navigator", {});
  session = new FakeSession();
  session.frame = frameOf([[0, 0, 0], [1, 1, 0], [2, 2, 0]], { residues: new Uint32Array([0, 1, 1]) });
  view = new FakeView(session);
  refused = [];
  touch = createTouch(session, view, { onRefused: (sentence) => refused.push(sentence) });
});

afterEach(() => {
  touch.dispose();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const pulls = () => [...session.state].filter(([key]) => key.startsWith("interaction.")).map(([, value]) => value as Record<string, unknown>);
const tick = (ms = 16) => {
  now += ms;
  view.tick(now);
};
const tell = (type: string, more: Record<string, unknown> = {}) => {
  const event = Object.assign(new Event(type, { cancelable: true }), {
    pointerId: 1, pointerType: "mouse", button: 0, buttons: type === "pointerdown" ? 1 : 0, clientX: 0, clientY: 0, ...more,
  });
  view.canvas.dispatchEvent(event);
  return event;
};
const press = (more: Record<string, unknown> = {}) => tell("pointerdown", { ...ATOM, ...more });
const drag = (dx: number, dy: number, more: Record<string, unknown> = {}) =>
  tell("pointermove", { clientX: ATOM.clientX + dx, clientY: ATOM.clientY + dy, buttons: 1, ...more });

describe("marking", () => {
  const click = (more: Record<string, unknown> = {}) => {
    press(more);
    tick();
    tell("pointerup", { ...ATOM, ...more });
    tick();
  };

  it("is done by clicks with Shift, which pull nothing", () => {
    touch.marks.unit = "residue";
    click({ shiftKey: true });
    expect(touch.marks.particles).toEqual([1, 2]);
    expect(view.highlighted).toEqual([1, 2]);
    click({ shiftKey: true });
    expect(touch.marks.particles).toEqual([]);
    expect(session.writes).toEqual([]);
    expect(view.pointerCaptured).toBe(false);
  });

  it("is done by every click while it is on, and not by drags", () => {
    touch.marks.active = true;
    click({ pointerType: "touch" });
    expect(touch.marks.particles).toEqual([1]);
    press();
    drag(40, 0);
    tell("pointerup", { clientX: ATOM.clientX + 40, clientY: ATOM.clientY });
    expect(touch.marks.particles).toEqual([1]);
    expect(session.writes).toEqual([]);
  });

  it("is done by a long press, which lets go again of what the finger held", () => {
    press({ pointerType: "touch" });
    tick(300);
    expect(pulls()).toHaveLength(1);
    tick(300);
    expect(pulls()).toEqual([]);
    expect(touch.marks.particles).toEqual([1]);
    tell("pointerup", { ...ATOM, pointerType: "touch" });
    expect(touch.marks.particles).toEqual([1]);
  });

  it("is not done by a finger that pulls, nor by two", () => {
    press({ pointerType: "touch" });
    drag(12, 0, { pointerType: "touch" });
    tick(300);
    tick(900);
    expect(pulls()).toHaveLength(1);
    tell("pointerup", { pointerType: "touch" });
    touch.marks.active = true;
    press({ pointerType: "touch" });
    tell("pointerdown", { ...SPACE, pointerId: 2, pointerType: "touch" });
    tell("pointerup", { ...ATOM, pointerType: "touch" });
    expect(touch.marks.particles).toEqual([]);
  });

  it("is done without a pointer for what is in the middle", () => {
    session.frame = frameOf([[2, -2, 0]]);
    touch.marks.here();
    expect(touch.marks.particles).toEqual([0]);
  });

  it("ends with the particles that were marked", () => {
    session.emit("frame");
    touch.marks.set([0, 2]);
    session.frame = frameOf([[0, 0, 0]], { topologySerial: 9 });
    session.emit("frame");
    expect(touch.marks.particles).toEqual([]);
  });
});

describe("a mouse", () => {
  it("pulls the atom that it is pressed on to where it goes", () => {
    press();
    tick();
    expect(pulls()).toMatchObject([{ particles: [1], position: [1, 1, 0] }]);
    drag(50, 100);
    drag(100, 200);
    tick();
    expect(pulls()).toMatchObject([{ particles: [1], position: [2, -1, 0] }]);
    expect(session.writes).toHaveLength(2);
    tell("pointerup");
    expect(pulls()).toEqual([]);
  });

  it("keeps the camera still while it pulls, and only then", () => {
    press();
    expect(view.pointerCaptured).toBe(true);
    tell("pointerup");
    expect(view.pointerCaptured).toBe(false);
  });

  it("pulls nothing in empty space, with another button, or with a key held down", () => {
    tell("pointerdown", SPACE);
    press({ button: 2 });
    press({ shiftKey: true });
    tick();
    expect(pulls()).toEqual([]);
    expect(view.pointerCaptured).toBe(false);
  });

  it("pulls the residue or the selection where that is what is to be grabbed", () => {
    touch.settings = { ...touch.settings, target: "residue" };
    press();
    tick();
    expect(pulls()).toMatchObject([{ particles: [1, 2], position: [1.5, 1.5, 0] }]);
  });

  it("moves what it pulls in depth with its wheel, and turns the wheel over to nobody else", () => {
    press();
    const wheel = Object.assign(new Event("wheel", { cancelable: true }), { deltaY: -100, deltaMode: 0 });
    view.canvas.dispatchEvent(wheel);
    tick();
    expect((pulls()[0]?.["position"] as number[])[2]).toBeLessThan(0);
    expect(wheel.defaultPrevented).toBe(true);
    tell("pointerup");
    const idle = Object.assign(new Event("wheel", { cancelable: true }), { deltaY: -100, deltaMode: 0 });
    view.canvas.dispatchEvent(idle);
    expect(idle.defaultPrevented).toBe(false);
  });

  it("shows what it would grab", () => {
    const heard = vi.fn();
    touch.on("hover", heard);
    tell("pointermove", ATOM);
    tick();
    expect(touch.hovered).toBe(1);
    expect(view.highlighted).toEqual([1]);
    expect(heard).toHaveBeenCalledTimes(1);
    tell("pointermove", SPACE);
    tick();
    expect(touch.hovered).toBeNull();
    expect(view.highlighted).toEqual([]);
  });

  it("looks for what is under it ten times a second while it rests, not more", () => {
    tell("pointermove", ATOM);
    tick();
    const before = view.picks;
    for (let i = 0; i < 60; i++) tick(1000 / 60);
    expect(view.picks - before).toBeLessThanOrEqual(10);
    expect(view.picks - before).toBeGreaterThan(5);
  });
});

describe("whatever ends a pull", () => {
  const ends: Record<string, () => void> = {
    "a cancelled pointer": () => tell("pointercancel"),
    "a lost capture": () => tell("lostpointercapture"),
    "a window that loses the focus": () => windowed.dispatchEvent(new Event("blur")),
    "a page that is left": () => windowed.dispatchEvent(new Event("pagehide")),
    "a page that is hidden": () => {
      page.hidden = true;
      page.dispatchEvent(new Event("visibilitychange"));
    },
    "the Escape key": () => windowed.dispatchEvent(Object.assign(new Event("keydown"), { key: "Escape" })),
    "letting go of everything": () => touch.releaseAll(),
    "other particles": () => {
      session.emit("frame");
      session.frame = frameOf([[0, 0, 0], [1, 1, 0]], { topologySerial: 2 });
      session.emit("frame");
    },
    "a lost session": () => {
      session.status = { kind: "lost", reason: "gone", retryInMs: 1 };
      session.emit("status");
    },
    "the end of the view": () => touch.dispose(),
  };
  for (const [name, end] of Object.entries(ends)) {
    it(`leaves no key behind: ${name}`, () => {
      press();
      tick();
      expect(pulls()).toHaveLength(1);
      end();
      expect(pulls()).toEqual([]);
      expect(view.pointerCaptured).toBe(false);
      drag(100, 100);
      tick();
      expect(pulls()).toEqual([]);
    });
  }
});

describe("fingers", () => {
  const finger = { pointerType: "touch" };

  it("pull with one, after a moment", () => {
    press(finger);
    tick();
    expect(pulls()).toEqual([]);
    tick(200);
    expect(pulls()).toMatchObject([{ particles: [1] }]);
  });

  it("are the camera's with two, and the first one's pull leaves no trace", () => {
    press(finger);
    tick();
    tell("pointerdown", { ...finger, pointerId: 2, ...SPACE });
    tick(500);
    expect(session.writes).toEqual([]);
    expect(view.pointerCaptured).toBe(false);
    tell("pointerup", { ...finger, pointerId: 2 });
    tell("pointerup", finger);
    press(finger);
    tick(200);
    expect(pulls()).toHaveLength(1);
  });
});

describe("the keyboard", () => {
  it("pulls what is under the pointer in the screen's plane", () => {
    tell("pointermove", ATOM);
    tick();
    touch.nudge(0.1, 0);
    touch.nudge(0, 0.2);
    tick();
    const [pull] = pulls();
    expect(pull).toMatchObject({ particles: [1] });
    [1.1, 1.2, 0].forEach((value, axis) => expect((pull?.["position"] as number[])[axis]).toBeCloseTo(value, 6));
    touch.releaseAll();
    expect(pulls()).toEqual([]);
  });
});

describe("what is drawn", () => {
  it("are everybody's pulls", () => {
    const heard = vi.fn();
    touch.on("pulls", heard);
    session.state.set("interaction.a", { position: [0, 0, 1], particles: [0], "owner.id": "bob" });
    session.emit("state");
    press();
    tick();
    expect(touch.pulls).toMatchObject([{ own: true, owner: "me" }, { own: false, owner: "bob", id: "a" }]);
    expect(heard).toHaveBeenCalled();
    expect(view.highlighted).toEqual([1]);
  });
});

it("tells those who may only watch that they do", () => {
  session.watching = true;
  press();
  expect(refused).toHaveLength(1);
  expect(view.pointerCaptured).toBe(false);
});

it("tells the others where our head is, not too often", () => {
  let told = 0;
  session.setAvatar = () => void told++;
  for (let i = 0; i < 60; i++) tick(1000 / 60);
  expect(told).toBeGreaterThan(2);
  expect(told).toBeLessThanOrEqual(6);
});
