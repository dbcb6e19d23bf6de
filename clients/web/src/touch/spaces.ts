/**
 * Between the session's server space (left-handed, Y up, metres) and the world that is drawn (right-handed).
 *
 * People meet around the molecule, so the two are tied together there: the state's `scene` says where the simulation box is in
 * server space, and the simulation's root object says where it is here. A hand that holds an atom in the session is then drawn at
 * that atom, wherever each of us has put the box.
 */

import { Matrix4, Quaternion, Vector3 } from "three";

const UNIT = new Vector3(1, 1, 1);
/** Simulation space is right-handed, and is mirrored in x to hang in the left-handed scene. */
const FLIP_X = new Matrix4().makeScale(-1, 1, 1);
/** An object looks along z in server space and along -z here. */
const FLIP_Z = new Matrix4().makeScale(1, 1, -1);
const MAX_COORDINATE = 1e6;

export class Spaces {
  private readonly worldFromServer = new Matrix4();
  private readonly serverFromWorld = new Matrix4();
  private readonly sceneFromSimulation = new Matrix4().copy(FLIP_X);

  private readonly matrix = new Matrix4();
  private readonly position = new Vector3();
  private readonly rotation = new Quaternion();
  private readonly scale = new Vector3();

  /**
   * @param scene The state's value of that key: position, quaternion (xyzw), scale; whatever it is, it comes from outside.
   *   Without a good one, the box is at the origin, and a nanometre is a metre.
   */
  setScene(scene: unknown): void {
    this.sceneFromSimulation.copy(FLIP_X);
    if (!isPose(scene)) return;
    this.position.fromArray(scene, 0);
    this.rotation.fromArray(scene, 3).normalize();
    this.scale.fromArray(scene, 7);
    this.sceneFromSimulation.compose(this.position, this.rotation, this.scale).multiply(FLIP_X);
  }

  /** @param root The simulation's place in the world. */
  setRoot(root: Matrix4): void {
    if (root.determinant() === 0) return;
    this.worldFromServer.copy(this.sceneFromSimulation).invert().premultiply(root);
    this.serverFromWorld.copy(this.worldFromServer).invert();
  }

  /** How the root is turned where up in server space is up in the world, and ahead is ahead; written to `out`. */
  uprightRoot(out: Quaternion): Quaternion {
    this.matrix.copy(this.sceneFromSimulation).premultiply(FLIP_Z);
    this.matrix.decompose(this.position, out, this.scale);
    return out;
  }

  /**
   * Where a thing of server space is in the world.
   *
   * @returns How many units of the world a metre of server space is.
   */
  toWorld(position: Vector3, rotation: Quaternion, outPosition: Vector3, outRotation: Quaternion): number {
    this.matrix.compose(position, rotation, UNIT);
    return this.converted(this.worldFromServer, outPosition, outRotation);
  }

  /** Where a thing of the world is in server space. */
  toServer(position: Vector3, rotation: Quaternion, outPosition: Vector3, outRotation: Quaternion): void {
    this.matrix.compose(position, rotation, UNIT);
    this.converted(this.serverFromWorld, outPosition, outRotation);
  }

  /**
   * The `scene` that others would have to see for the box to have moved for them as it did here, since this was last told of
   * the root: 10 numbers, written to `out`.
   */
  sceneFor(root: Matrix4, out: number[]): number[] {
    this.matrix.multiplyMatrices(this.serverFromWorld, root).multiply(FLIP_X);
    this.matrix.decompose(this.position, this.rotation, this.scale);
    this.position.toArray(out, 0);
    this.rotation.toArray(out, 3);
    this.scale.toArray(out, 7);
    return out;
  }

  private converted(matrix: Matrix4, outPosition: Vector3, outRotation: Quaternion): number {
    this.matrix.premultiply(matrix).multiply(FLIP_Z);
    this.matrix.decompose(outPosition, outRotation, this.scale);
    return Math.cbrt(Math.abs(this.scale.x * this.scale.y * this.scale.z));
  }
}

function isPose(value: unknown): value is number[] {
  if (!Array.isArray(value) || value.length !== 10) return false;
  if (!value.every((one) => typeof one === "number" && Math.abs(one) < MAX_COORDINATE)) return false;
  const [, , , x, y, z, w, sx, sy, sz] = value as number[];
  return Math.hypot(x!, y!, z!, w!) > 1e-6 && Math.abs(sx! * sy! * sz!) > 1e-12;
}
