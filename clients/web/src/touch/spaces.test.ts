import { Euler, Matrix4, Quaternion, Vector3 } from "three";
import { describe, expect, it } from "vitest";
import { SIMULATION_YAW } from "../scene/orbit.ts";
import { Spaces } from "./spaces.ts";

const v = (x: number, y: number, z: number) => new Vector3(x, y, z);
const IDENTITY = [0, 0, 0, 0, 0, 0, 1, 1, 1, 1];
const spacesOf = (scene: unknown, root = new Matrix4()) => {
  const spaces = new Spaces();
  spaces.setScene(scene);
  spaces.setRoot(root);
  return spaces;
};
const turned = (x: number, y: number, z: number) => new Quaternion().setFromEuler(new Euler(x, y, z));
const world = (spaces: Spaces, position: number[], rotation: number[] = [0, 0, 0, 1]) => {
  const out = { position: new Vector3(), rotation: new Quaternion(), scale: 0 };
  out.scale = spaces.toWorld(v(...(position as [number, number, number])), new Quaternion().fromArray(rotation), out.position, out.rotation);
  return out;
};

describe("server space and the world", () => {
  it("mirror x where the box is at both origins", () => {
    expect(world(spacesOf(IDENTITY), [1, 2, 3]).position.distanceTo(v(-1, 2, 3))).toBeLessThan(1e-9);
  });

  it("agree with an atom's place: a hand at the atom is drawn at the atom", () => {
    const pose = turned(0.3, -0.5, 1.1);
    const scene = [0.4, 1.2, -0.7, ...pose.toArray(), 0.25, 0.25, 0.25];
    const root = new Matrix4().compose(v(2, -1, 5), turned(1, 2, 3), v(3, 3, 3));
    const atom = v(0.6, 1.7, -0.2);
    // Existing clients hang the simulation, mirrored in x, into a scene that has this pose.
    const hand = v(-atom.x, atom.y, atom.z).multiplyScalar(0.25).applyQuaternion(pose).add(v(0.4, 1.2, -0.7));
    const drawn = world(spacesOf(scene, root), hand.toArray());
    expect(drawn.position.distanceTo(atom.clone().applyMatrix4(root))).toBeLessThan(1e-9);
    expect(drawn.scale).toBeCloseTo(3 / 0.25, 9);
  });

  it("keep up where it is up, and show people looking the way they look", () => {
    // In server space things look along +z; mirrored in x, that is +z here, where things look along -z.
    const { rotation } = world(spacesOf(IDENTITY), [0, 0, 0]);
    expect(v(0, 0, -1).applyQuaternion(rotation).distanceTo(v(0, 0, 1))).toBeLessThan(1e-9);
    expect(v(0, 1, 0).applyQuaternion(rotation).distanceTo(v(0, 1, 0))).toBeLessThan(1e-9);
    // Somebody who looks along +x there looks along -x here.
    const sideways = turned(0, Math.PI / 2, 0); // takes z to x
    const seen = world(spacesOf(IDENTITY), [0, 0, 0], sideways.toArray()).rotation;
    expect(v(0, 0, -1).applyQuaternion(seen).distanceTo(v(-1, 0, 0))).toBeLessThan(1e-9);
  });

  it("is the usual negated z where the box is turned to face us", () => {
    const spaces = spacesOf(IDENTITY, new Matrix4().makeRotationY(Math.PI));
    const rotation = turned(0.2, 0.4, -0.6);
    const seen = world(spaces, [1, 2, 3], rotation.toArray());
    expect(seen.position.distanceTo(v(1, 2, -3))).toBeLessThan(1e-9);
    const expected = new Quaternion(-rotation.x, -rotation.y, rotation.z, rotation.w);
    expect(Math.abs(seen.rotation.dot(expected))).toBeCloseTo(1, 9);
  });

  it("meet upright on a screen: somebody in a NanoVer headset holds the atom that they are seen to hold", () => {
    // Their hand is in the left-handed room, where the simulation hangs mirrored in x, under a box that they put at chest height.
    const [chest, size] = [v(0.2, 1.1, 0.6), 0.15];
    const scene = [...chest.toArray(), ...turned(0, 0.7, 0).toArray(), size, size, size];
    const atom = v(0.9, -0.4, 1.3);
    const hand = v(-atom.x, atom.y, atom.z).multiplyScalar(size).applyQuaternion(turned(0, 0.7, 0)).add(chest);
    const spaces = spacesOf(scene, new Matrix4().compose(v(0, 0, 0), turned(0, SIMULATION_YAW, 0), v(0.1, 0.1, 0.1)));
    const seen = world(spaces, hand.toArray());
    expect(seen.position.distanceTo(v(-atom.x, atom.y, -atom.z).multiplyScalar(0.1))).toBeLessThan(1e-9);
    expect(v(0, 1, 0).applyQuaternion(seen.rotation).distanceTo(v(0, 1, 0))).toBeLessThan(1e-9);
    // Their head is above their hand, and the floor is below the molecule.
    const head = world(spaces, [hand.x, hand.y + 0.5, hand.z]).position;
    expect(head.sub(seen.position).normalize().distanceTo(v(0, 1, 0))).toBeLessThan(1e-9);
    // And what a hand of ours says of the same place is what theirs says.
    const told = { position: new Vector3(), rotation: new Quaternion() };
    spaces.toServer(seen.position, seen.rotation, told.position, told.rotation);
    expect(told.position.distanceTo(hand)).toBeLessThan(1e-9);
  });

  it("have up in common where the root is turned to be upright", () => {
    for (const scene of [undefined, [1, 2, 3, ...turned(0.7, -0.2, 1.3).toArray(), 2, 2, 2]]) {
      const spaces = spacesOf(scene);
      const root = spaces.uprightRoot(new Quaternion());
      spaces.setRoot(new Matrix4().compose(v(4, 5, 6), root, v(0.3, 0.3, 0.3)));
      const { rotation } = world(spaces, [0, 0, 0]);
      expect(Math.abs(rotation.w)).toBeCloseTo(1, 9);
    }
  });

  it("are each other's inverse", () => {
    const scene = [1, 2, 3, ...turned(0.1, 0.2, 0.3).toArray(), 0.5, 0.5, 0.5];
    const spaces = spacesOf(scene, new Matrix4().compose(v(3, 1, 2), turned(-1, 0.4, 2), v(0.2, 0.2, 0.2)));
    const rotation = turned(2, 1, -0.4);
    const there = world(spaces, [0.3, -0.4, 0.5], rotation.toArray());
    const back = { position: new Vector3(), rotation: new Quaternion() };
    spaces.toServer(there.position, there.rotation, back.position, back.rotation);
    expect(back.position.distanceTo(v(0.3, -0.4, 0.5))).toBeLessThan(1e-9);
    expect(Math.abs(back.rotation.dot(rotation))).toBeCloseTo(1, 9);
  });

  it("take a scene that is none for the origin", () => {
    for (const scene of [undefined, null, 3, [], [1, 2, 3], "scene", new Array(10).fill(Number.NaN), new Array(10).fill(0)]) {
      expect(world(spacesOf(scene), [1, 2, 3]).position.distanceTo(v(-1, 2, 3))).toBeLessThan(1e-9);
    }
  });
});

describe("the place of the box for others", () => {
  it("is what it was while it has not been moved here", () => {
    const scene = [1, 2, 3, ...turned(0.1, 0.2, 0.3).toArray(), 0.5, 0.5, 0.5];
    const root = new Matrix4().compose(v(3, 1, 2), turned(-1, 0.4, 2), v(0.2, 0.2, 0.2));
    const out = spacesOf(scene, root).sceneFor(root, []);
    const same = new Quaternion().fromArray(out, 3).dot(new Quaternion().fromArray(scene, 3));
    expect(Math.abs(same)).toBeCloseTo(1, 9);
    for (const i of [0, 1, 2, 7, 8, 9]) expect(out[i]).toBeCloseTo(scene[i]!, 9);
  });

  it("goes where it went here, as seen by somebody who stays", () => {
    const root = new Matrix4().makeScale(2, 2, 2);
    const spaces = spacesOf(IDENTITY, root);
    const still = world(spaces, [0.5, 0.5, 0.5]).position.clone();
    const moved = new Matrix4().compose(v(1, 0, 0), turned(0, 1, 0), v(3, 3, 3));
    spaces.setScene(spaces.sceneFor(moved, []));
    spaces.setRoot(moved);
    expect(world(spaces, [0.5, 0.5, 0.5]).position.distanceTo(still)).toBeLessThan(1e-9);
  });
});
