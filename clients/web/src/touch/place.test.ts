import { Euler, Matrix4, Quaternion, Vector3 } from "three";
import { beforeEach, describe, expect, it } from "vitest";
import { SIMULATION_YAW } from "../scene/orbit.ts";
import { frameOf } from "./frame.fixture.ts";
import { Place } from "./place.ts";
import { FakeSession } from "./session.fixture.ts";
import { Spaces } from "./spaces.ts";
import { FakeView } from "./view.fixture.ts";

let session: FakeSession;
let view: FakeView;
let place: Place;
const tilted = new Quaternion().setFromEuler(new Euler(0.9, 0.4, -0.6));
const settle = () => {
  for (let i = 0; i < 200; i++) place.stand(16);
};
const middle = () => view.simulationRoot.localToWorld(new Vector3(2, 1, 1));
/** Which way the head of somebody who stands upright in the room is in the picture. */
const theirUp = () => {
  const spaces = new Spaces();
  spaces.setScene(session.state.get("scene"));
  view.simulationRoot.updateMatrixWorld();
  spaces.setRoot(view.simulationRoot.matrixWorld);
  const seen = new Quaternion();
  spaces.toWorld(new Vector3(), new Quaternion(), new Vector3(), seen);
  return new Vector3(0, 1, 0).applyQuaternion(seen);
};

beforeEach(() => {
  session = new FakeSession();
  session.frame = frameOf([[1, 0, 0], [3, 2, 2]]);
  view = new FakeView(session);
  view.simulationRoot.rotation.y = SIMULATION_YAW;
  view.simulationRoot.scale.setScalar(0.1);
  view.simulationRoot.updateMatrixWorld();
  place = new Place(session, view);
});

describe("the box on a screen", () => {
  it("stays as it is while nobody has turned it", () => {
    const before = view.simulationRoot.quaternion.clone();
    settle();
    session.state.set("scene", [1, 2, 3, 0, 0, 0, 1, 0.5, 0.5, 0.5]);
    settle();
    expect(view.simulationRoot.quaternion.angleTo(before)).toBeLessThan(1e-6);
    expect(theirUp().y).toBeCloseTo(1);
  });

  it("turns as it was turned in the room, about its middle, so that people stand upright", () => {
    const before = middle();
    session.state.set("scene", [1, 2, 3, ...tilted.toArray(), 0.5, 0.5, 0.5]);
    expect(theirUp().y).toBeLessThan(0.9);
    place.stand(16);
    expect(theirUp().y).toBeLessThan(0.999); // it is on its way
    settle();
    expect(theirUp().y).toBeCloseTo(1);
    expect(middle().distanceTo(before)).toBeLessThan(1e-6);
    session.state.delete("scene");
    settle();
    expect(theirUp().y).toBeCloseTo(1);
  });

  it("heeds what happened in the room meanwhile when it is back from there", () => {
    place.bring(new Matrix4().makeTranslation(0, 1.6, 0));
    session.state.set("scene", [0, 0, 0, ...tilted.toArray(), 1, 1, 1]);
    place.restore();
    expect(view.simulationRoot.scale.x).toBeCloseTo(0.1);
    settle();
    expect(theirUp().y).toBeCloseTo(1);
  });
});

it("brings the box upright before the eyes, to the same place each time", () => {
  session.state.set("scene", [0, 0, 0, ...tilted.toArray(), 1, 1, 1]);
  const head = new Matrix4().compose(new Vector3(1, 1.2, 0), new Quaternion().setFromEuler(new Euler(0, Math.PI, 0)), new Vector3(1, 1, 1));
  for (let i = 0; i < 2; i++) {
    place.bring(head);
    expect(middle().distanceTo(new Vector3(1, 0.9, 0.95))).toBeLessThan(1e-6);
    expect(theirUp().y).toBeCloseTo(1);
  }
});
