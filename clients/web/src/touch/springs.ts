/** Draws everybody's pulls: a spring from what is held to its handle, and an arrow for the force that the simulation reports. */

import {
  BufferGeometry,
  Color,
  ConeGeometry,
  Curve,
  CylinderGeometry,
  DynamicDrawUsage,
  type Group,
  IcosahedronGeometry,
  InstancedMesh,
  Matrix4,
  MeshLambertMaterial,
  Quaternion,
  TubeGeometry,
  Vector3,
} from "three";
import type { ReadonlyPoint } from "./drag.ts";
import { MAX_PULLS, type Pull } from "./pulls.ts";

const TURNS = 9;
const COIL_HEIGHT = 16;
const COIL_PX = 6;
const ROD_PX = 1.5;
const HANDLE_PX = 7;
const ARROW_PX = 22;
const ARROW_HEAD_PX = 12;
/** Forces are drawn on a logarithmic scale, which starts here: kJ/(mol nm). */
const FORCE_UNIT = 50;
const FAINTEST_FORCE = 1;
const SHORTEST = 1e-4;

const UP = new Vector3(0, 1, 0);

/** How large the force is to look: 0 for none, growing by 1 with each factor of ten. */
export function forceSize(force: ReadonlyPoint): number {
  const size = Math.hypot(force[0], force[1], force[2]);
  return Number.isFinite(size) ? Math.log10(1 + size / FORCE_UNIT) : 0;
}

export class Springs {
  private readonly coils: InstancedMesh;
  private readonly rods: InstancedMesh;
  private readonly handles: InstancedMesh;
  private readonly heads: InstancedMesh;
  private readonly meshes: readonly InstancedMesh[];

  private readonly start = new Vector3();
  private readonly end = new Vector3();
  private readonly direction = new Vector3();
  private readonly matrix = new Matrix4();
  private readonly turn = new Quaternion();
  private readonly size = new Vector3();

  /** @param parent Simulation space. */
  constructor(private readonly parent: Group) {
    const material = new MeshLambertMaterial();
    this.coils = instances(coil(), material, MAX_PULLS);
    this.rods = instances(new CylinderGeometry(1, 1, 1, 8), material, 2 * MAX_PULLS);
    this.handles = instances(new IcosahedronGeometry(1, 2), material, MAX_PULLS);
    this.heads = instances(new ConeGeometry(1, 1, 12), material, MAX_PULLS);
    this.meshes = [this.coils, this.rods, this.handles, this.heads];
    parent.add(...this.meshes);
  }

  /**
   * To be called once per animation frame.
   *
   * @param nmPerPixel How much a pixel is at a place of simulation space.
   * @param colorOf The color of somebody.
   */
  draw(pulls: readonly Pull[], nmPerPixel: (at: ReadonlyPoint) => number, colorOf: (owner: string) => Color): void {
    for (const mesh of this.meshes) mesh.count = 0;
    for (const pull of pulls) if (pull.shown) this.add(pull, nmPerPixel(pull.tip), colorOf(pull.owner));
    for (const mesh of this.meshes) {
      mesh.visible = mesh.count > 0;
      if (!mesh.visible) continue;
      mesh.instanceMatrix.needsUpdate = true;
      mesh.instanceColor!.needsUpdate = true;
    }
  }

  dispose(): void {
    this.parent.remove(...this.meshes);
    for (const mesh of this.meshes) {
      mesh.geometry.dispose();
      mesh.dispose();
    }
    (this.coils.material as MeshLambertMaterial).dispose();
  }

  private add(pull: Pull, pixel: number, color: Color): void {
    const force = forceSize(pull.force);
    const thick = 1 + 0.35 * force;
    this.start.fromArray(pull.centre);
    this.end.fromArray(pull.tip);
    if (pull.law === "spring") this.between(this.coils, this.start, this.end, COIL_PX * pixel * thick, color);
    else this.between(this.rods, this.start, this.end, ROD_PX * pixel * thick, color);

    this.matrix.compose(this.end, this.turn.identity(), this.size.setScalar(HANDLE_PX * pixel));
    put(this.handles, this.matrix, color);

    this.direction.fromArray(pull.force);
    const newtons = this.direction.length();
    if (!(newtons > FAINTEST_FORCE) || force === 0) return;
    this.direction.divideScalar(newtons);
    this.end.copy(this.start).addScaledVector(this.direction, ARROW_PX * pixel * (1 + force));
    this.between(this.rods, this.start, this.end, 2 * ROD_PX * pixel, color);
    this.start.copy(this.end).addScaledVector(this.direction, ARROW_HEAD_PX * pixel);
    this.between(this.heads, this.end, this.start, 0.4 * ARROW_HEAD_PX * pixel, color);
  }

  /** Stretches one of a mesh's instances, which is 1 long in y, from one place to the other. */
  private between(mesh: InstancedMesh, from: Vector3, to: Vector3, radius: number, color: Color): void {
    this.size.subVectors(to, from);
    const length = this.size.length();
    if (!(length > SHORTEST)) return;
    this.turn.setFromUnitVectors(UP, this.size.divideScalar(length));
    this.matrix.makeRotationFromQuaternion(this.turn).scale(this.size.set(radius, length, radius));
    this.matrix.setPosition((from.x + to.x) / 2, (from.y + to.y) / 2, (from.z + to.z) / 2);
    put(mesh, this.matrix, color);
  }
}

/** Room for so many instances of a shape, each with a color of its own, none drawn yet. */
export function instances(geometry: BufferGeometry, material: MeshLambertMaterial, capacity: number): InstancedMesh {
  const mesh = new InstancedMesh(geometry, material, capacity);
  mesh.instanceMatrix.setUsage(DynamicDrawUsage);
  mesh.setColorAt(0, new Color());
  mesh.frustumCulled = false;
  mesh.count = 0;
  mesh.visible = false;
  return mesh;
}

/** One more instance, where there is room. */
export function put(mesh: InstancedMesh, matrix: Matrix4, color: Color): void {
  if (mesh.count >= mesh.instanceMatrix.count) return;
  mesh.setMatrixAt(mesh.count, matrix);
  mesh.setColorAt(mesh.count, color);
  mesh.count += 1;
}

class Helix extends Curve<Vector3> {
  constructor() {
    super();
  }

  override getPoint(t: number, out = new Vector3()): Vector3 {
    const angle = 2 * Math.PI * TURNS * t;
    const radius = Math.min(1, 12 * t, 12 * (1 - t)); // both ends are in the axis
    return out.set(radius * Math.cos(angle), COIL_HEIGHT * (t - 0.5), radius * Math.sin(angle));
  }
}

/** A coil of radius 1 and height 1. */
function coil(): BufferGeometry {
  return new TubeGeometry(new Helix(), TURNS * 14, 0.16, 5).scale(1, 1 / COIL_HEIGHT, 1);
}
