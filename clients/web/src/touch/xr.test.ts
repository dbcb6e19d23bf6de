import { type Group, Quaternion, Vector3 } from "three";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import type { PullChoice, Touch } from "../contracts.ts";
import { frameOf } from "./frame.fixture.ts";
import { createTouch } from "./index.ts";
import { MENU, MENU_SIZE } from "./menu-layout.ts";
import { FakeSession } from "./session.fixture.ts";
import { fakeDocument, FakeView } from "./view.fixture.ts";
import { xrSupport } from "./headset.ts";

class FakeXrSession extends EventTarget {
  enabledFeatures = ["local-floor"];
  visibilityState = "visible";
  end(): Promise<void> {
    this.dispatchEvent(new Event("end"));
    return Promise.resolve();
  }
}

let session: FakeSession;
let view: FakeView;
let touch: Touch;
let now: number;
let worn: FakeXrSession;
let pulses: number;
let choices: PullChoice[];
const refusedBy = { name: "", message: "" };

beforeEach(() => {
  now = 1000;
  pulses = 0;
  refusedBy.name = "";
  worn = new FakeXrSession();
  vi.spyOn(performance, "now").mockImplementation(() => now);
  vi.stubGlobal("window", new EventTarget());
  vi.stubGlobal("document", fakeDocument());
  vi.stubGlobal("isSecureContext", true);
  vi.stubGlobal("navigator", {
    xr: {
      isSessionSupported: (mode: string) => Promise.resolve(mode === "immersive-vr"),
      requestSession: () => (refusedBy.name ? Promise.reject(Object.assign(new Error(refusedBy.message), refusedBy)) : Promise.resolve(worn)),
    },
  });
  session = new FakeSession();
  session.frame = frameOf([[0, 0, 0], [2, 0, 0], [0, 2, 0], [2, 2, 2]]);
  view = new FakeView(session);
  choices = [];
  touch = createTouch(session, view, { onChoice: (choice) => void choices.push(choice) });
});

afterEach(() => {
  touch.dispose();
  vi.unstubAllGlobals();
  vi.restoreAllMocks();
});

const pulls = () => [...session.state].filter(([key]) => key.startsWith("interaction.")).map(([, value]) => value as Record<string, unknown>);
const tick = (ms = 100) => {
  now += ms;
  view.tick(now);
};
const place = (particle: number) => view.simulationRoot.localToWorld(new Vector3(...view.positionOf(particle)));
const hand = (index: number, at: Vector3) => {
  for (const object of [view.controllers[index]!, view.grips[index]!]) {
    object.position.copy(at);
    object.updateMatrixWorld();
  }
};
const tell = (index: number, type: string) => (view.controllers[index] as Group).dispatchEvent({ type } as never);
const EYES = new Vector3(0, 1.6, 0);
const wear = async () => {
  view.camera.position.copy(EYES);
  await touch.xr.enter("immersive-vr");
  for (const [index, handedness] of ["left", "right"].entries()) {
    const gamepad = { hapticActuators: [{ pulse: () => Promise.resolve(void pulses++) }] };
    (view.controllers[index] as Group).dispatchEvent({ type: "connected", data: { handedness, gamepad } } as never);
    hand(index, new Vector3(9, 9, 9));
  }
  tick();
};

describe("a headset", () => {
  it("is offered where there is one", async () => {
    expect(await xrSupport()).toEqual({ vr: true, ar: false, reason: "" });
  });

  it("is missed with a word why", async () => {
    vi.stubGlobal("navigator", {});
    expect(await xrSupport()).toMatchObject({ vr: false, ar: false, reason: expect.stringContaining("No headset") as string });
    await expect(touch.xr.enter("immersive-vr")).rejects.toThrow("No headset");
    vi.stubGlobal("isSecureContext", false);
    expect((await xrSupport()).reason).toContain("https");
  });

  it("that does not start says why, and leaves all as it was", async () => {
    refusedBy.name = "NotAllowedError";
    await expect(touch.xr.enter("immersive-vr")).rejects.toThrow("did not let");
    refusedBy.name = "NotSupportedError";
    await expect(touch.xr.enter("immersive-vr")).rejects.toThrow("No headset");
    expect(touch.xr.active).toBeNull();
    expect(view.pointerCaptured).toBe(false);
  });

  it("has the molecule before us, and puts it back in the end", async () => {
    view.simulationRoot.position.set(1, 2, 3);
    view.simulationRoot.scale.setScalar(0.1);
    const heard = vi.fn();
    touch.xr.on(heard);
    await wear();
    expect(touch.xr.active).toBe("immersive-vr");
    expect(view.fakeXr.space).toBe("local-floor");
    const middle = view.simulationRoot.localToWorld(new Vector3(1, 1, 1));
    expect(middle.distanceTo(new Vector3(0, 1.3, -0.95))).toBeLessThan(1e-6);
    expect(place(0).distanceTo(place(1))).toBeCloseTo(1, 6);
    touch.xr.leave();
    expect(touch.xr.active).toBeNull();
    expect(view.simulationRoot.quaternion.toArray()).toEqual([0, 0, 0, 1]);
    expect(view.simulationRoot.position.toArray()).toEqual([1, 2, 3]);
    expect(view.simulationRoot.scale.x).toBe(0.1);
    expect(heard).toHaveBeenCalledTimes(2);
    expect(view.worldRoot.children).not.toContain(view.controllers[0]);
  });
});

describe("a headset that is worn", () => {
  it("has the molecule before us wherever we sit and look, once it knows where that is", async () => {
    view.fakeXr.tracked = false;
    await wear();
    expect(view.simulationRoot.scale.x).toBe(1);
    view.fakeXr.tracked = true;
    view.camera.position.set(2, 1.1, 3);
    view.camera.rotation.set(-0.8, Math.PI / 2, 0, "YXZ"); // down, and to the left
    tick();
    const middle = view.simulationRoot.localToWorld(new Vector3(1, 1, 1));
    expect(middle.distanceTo(new Vector3(1.05, 0.8, 3))).toBeLessThan(1e-6);
    const up = new Vector3(0, 1, 0).transformDirection(view.simulationRoot.matrixWorld);
    expect(up.distanceTo(new Vector3(0, 1, 0))).toBeLessThan(1e-6);
  });

  it("is placed by the eyes where it does not know the floor", async () => {
    worn.enabledFeatures = [];
    await touch.xr.enter("immersive-vr");
    expect(view.fakeXr.space).toBe("local");
  });

  it("is told what the page says of a lost session, until it is back", async () => {
    await wear();
    const sign = () => view.worldRoot.children.find((child) => child.renderOrder === 20)!;
    tick(60_000);
    tick();
    expect(sign().visible).toBe(false); // the welcome is over
    session.status = { kind: "lost", reason: "The connection was lost.", retryInMs: 500 };
    session.emit("status");
    tick(60_000);
    expect(sign().visible).toBe(true);
    session.status = { kind: "connecting", attempt: 1 };
    session.emit("status");
    tick(60_000);
    expect(sign().visible).toBe(true);
    session.status = { kind: "open" };
    session.emit("status");
    tick();
    expect(sign().visible).toBe(true);
    tick(60_000);
    expect(sign().visible).toBe(false);
  });

  it("lets go when another thing of the headset's own covers the session", async () => {
    await wear();
    hand(0, place(1));
    tell(0, "selectstart");
    tick();
    expect(pulls()).toHaveLength(1);
    worn.visibilityState = "visible-blurred";
    worn.dispatchEvent(new Event("visibilitychange"));
    expect(pulls()).toEqual([]);
  });
});

describe("the menu", () => {
  const run = vi.fn(() => Promise.resolve({}));
  const menu = () => view.worldRoot.children.find((child) => child.renderOrder === 5)!;
  /** The right hand points at an item of the menu and presses. */
  const choose = (label: string) => {
    const item = MENU.find((one) => one.label === label)!;
    const at = new Vector3((item.x + item.width / 2 - 0.5) * MENU_SIZE.width, (0.5 - item.y - item.height / 2) * MENU_SIZE.height, 0);
    const from = menu().localToWorld(at.clone().add(new Vector3(0.05, 0.02, 0.2)));
    const aim = view.controllers[1]!;
    aim.position.copy(from);
    aim.quaternion.setFromUnitVectors(new Vector3(0, 0, -1), menu().localToWorld(at).sub(from).normalize());
    aim.updateMatrixWorld();
    tick();
    tell(1, "selectstart");
    tell(1, "selectend");
  };

  beforeEach(async () => {
    run.mockClear();
    await wear();
    session.run = run;
    hand(0, new Vector3(-0.2, 1.3, -0.4));
    tick();
    expect(menu().visible).toBe(false);
    view.grips[0]!.quaternion.set(0, -Math.SQRT1_2, 0, Math.SQRT1_2); // the left palm is turned to the face
    tick();
    expect(menu().visible).toBe(true);
  });

  it("runs the simulation, changes how it is pulled, and grabs nothing meanwhile", () => {
    choose("Pause");
    choose("Play");
    choose("Reset");
    expect(run.mock.calls).toEqual([["playback/pause"], ["playback/play"], ["playback/reset"]]);
    choose("Gaussian");
    choose("Stronger");
    choose("Weaker");
    expect(choices).toEqual([{ law: "gaussian" }, { stronger: 1 }, { stronger: -1 }]);
    expect(session.writes).toEqual([]);
  });

  it("brings the molecule back, shares its place, and leaves", () => {
    view.simulationRoot.position.set(50, 0, 0);
    choose("Bring here");
    expect(view.simulationRoot.localToWorld(new Vector3(1, 1, 1)).distanceTo(new Vector3(0, 1.3, -0.95))).toBeLessThan(1e-6);
    choose("Move for all");
    expect(touch.xr.sharePlace).toBe(true);
    choose("Leave");
    expect(touch.xr.active).toBeNull();
    expect(menu()).toBeUndefined();
  });

  it("keeps the hand that holds it from grabbing", () => {
    view.controllers[0]!.position.copy(place(1));
    view.controllers[0]!.updateMatrixWorld();
    tell(0, "selectstart");
    tick();
    expect(pulls()).toEqual([]);
  });

  it("goes with the palm, and where its hand takes something", () => {
    tell(0, "squeezestart");
    tick();
    expect(menu().visible).toBe(false);
    tell(0, "squeezeend");
    tick();
    expect(menu().visible).toBe(true);
    view.grips[0]!.quaternion.copy(new Quaternion());
    tick();
    expect(menu().visible).toBe(false);
  });
});

describe("bare hands", () => {
  it("pinch what is there, and move the box where nothing is", async () => {
    await wear();
    (view.controllers[0] as Group).dispatchEvent({ type: "connected", data: { handedness: "left", hand: {} } } as never);
    hand(0, place(1));
    tell(0, "selectstart");
    tick();
    expect(pulls()).toHaveLength(1);
    tell(0, "selectend");
    hand(0, new Vector3(9, 9, 9));
    const before = place(3);
    tell(0, "selectstart");
    hand(0, new Vector3(9, 10, 9));
    tick();
    expect(pulls()).toEqual([]);
    expect(place(3).sub(before).distanceTo(new Vector3(0, 1, 0))).toBeLessThan(1e-9);
    tell(0, "selectend");
    hand(0, new Vector3(9, 20, 9));
    tick();
    expect(place(3).sub(before).distanceTo(new Vector3(0, 1, 0))).toBeLessThan(1e-9);
  });
});

describe("hands", () => {
  beforeEach(wear);

  it("grab what is near them, each its own, and pull it along", () => {
    hand(0, place(1));
    hand(1, place(2));
    tell(0, "selectstart");
    tell(1, "selectstart");
    tick();
    expect(pulls()).toMatchObject([{ particles: [1] }, { particles: [2] }]);
    expect(pulses).toBeGreaterThanOrEqual(2);
    const aim = place(1).add(new Vector3(0.3, 0.1, -0.2));
    hand(0, aim);
    tick();
    const [x, y, z] = pulls()[0]!["position"] as [number, number, number];
    expect(view.simulationRoot.localToWorld(new Vector3(x, y, z)).distanceTo(aim)).toBeLessThan(1e-6);
    expect(new Vector3(...(pulls()[1]!["position"] as [number, number, number])).distanceTo(new Vector3(0, 2, 0))).toBeLessThan(1e-9);
    tell(0, "selectend");
    expect(pulls()).toMatchObject([{ particles: [2] }]);
    tell(1, "selectend");
    expect(pulls()).toEqual([]);
  });

  it("grab along their ray what is out of reach", () => {
    hand(0, place(1).add(new Vector3(0, 0, 0.5))); // they point along -z
    tell(0, "selectstart");
    tick();
    expect(pulls()).toMatchObject([{ particles: [1] }]);
  });

  it("grab nothing where there is nothing", () => {
    tell(0, "selectstart");
    tick();
    expect(pulls()).toEqual([]);
  });

  it("let go when they are lost, and when the headset is taken off", async () => {
    hand(0, place(1));
    tell(0, "selectstart");
    tick();
    tell(0, "disconnected");
    expect(pulls()).toEqual([]);
    hand(1, place(2));
    tell(1, "selectstart");
    tick();
    expect(pulls()).toHaveLength(1);
    await worn.end();
    expect(pulls()).toEqual([]);
    expect(touch.xr.active).toBeNull();
  });

  it("carry the box with one", () => {
    const before = place(3);
    hand(0, new Vector3(1, 1, 1));
    tell(0, "squeezestart");
    hand(0, new Vector3(1.5, 1, 0.5));
    tick();
    expect(place(3).sub(before).distanceTo(new Vector3(0.5, 0, -0.5))).toBeLessThan(1e-9);
    tell(0, "squeezeend");
    hand(0, new Vector3(5, 5, 5));
    tick();
    expect(place(3).sub(before).distanceTo(new Vector3(0.5, 0, -0.5))).toBeLessThan(1e-9);
  });

  it("stretch the box between two, about their middle", () => {
    const size = place(0).distanceTo(place(1));
    hand(0, new Vector3(-1, 1, 0));
    hand(1, new Vector3(1, 1, 0));
    tell(0, "squeezestart");
    tell(1, "squeezestart");
    hand(0, new Vector3(-2, 1, 0));
    hand(1, new Vector3(2, 1, 0));
    tick();
    expect(place(0).distanceTo(place(1))).toBeCloseTo(2 * size, 9);
    tell(1, "squeezeend");
    tell(0, "squeezeend");
    tick();
    expect(place(0).distanceTo(place(1))).toBeCloseTo(2 * size, 9);
  });

  it("do not move the box for others unless that is wanted", () => {
    hand(0, new Vector3(1, 1, 1));
    tell(0, "squeezestart");
    hand(0, new Vector3(2, 1, 1));
    tick();
    tell(0, "squeezeend");
    tick();
    expect(session.state.has("scene")).toBe(false);
    touch.xr.sharePlace = true;
    hand(0, new Vector3(1, 1, 1));
    tell(0, "squeezestart");
    hand(0, new Vector3(1, 2, 1));
    tick();
    tell(0, "squeezeend");
    tick();
    const scene = session.state.get("scene") as number[];
    expect(scene).toHaveLength(10);
    // A metre up here, where a nanometre is 0.5 m, is as many nanometres up where one is a metre.
    expect(scene[1]).toBeCloseTo(1 / 0.5, 6);
    expect(Math.hypot(scene[0]!, scene[2]!)).toBeLessThan(1e-6);
  });

  it("are told to the others with the head, not too often", () => {
    let told: unknown[] = [];
    let count = 0;
    session.setAvatar = (components) => {
      told = components.map(({ name }) => name);
      count += 1;
    };
    for (let i = 0; i < 90; i++) tick(1000 / 90);
    expect(told).toEqual(["headset", "hand.left", "hand.right"]);
    expect(count).toBeLessThanOrEqual(16);
    expect(count).toBeGreaterThan(10);
  });
});
