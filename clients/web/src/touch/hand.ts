/** One tracked controller or hand: where it is, what it holds, and its ray. */

import {
  BufferAttribute,
  BufferGeometry,
  type Color,
  IcosahedronGeometry,
  Line,
  LineBasicMaterial,
  Matrix4,
  Mesh,
  MeshBasicMaterial,
  MeshLambertMaterial,
  type Object3D,
  SphereGeometry,
  Vector3,
} from "three";

/** How far its ray is drawn where it meets nothing, metres. */
const RAY_LENGTH = 1.5;

interface Pulser {
  pulse?: (strength: number, ms: number) => Promise<unknown>;
}

export class Hand {
  /** Its name among all that grabs. */
  readonly pointer: string;
  source: XRInputSource | null = null;
  /** Whether it has the box. */
  carries = false;
  /** The particle that would be grabbed; -1 for none. */
  hovered = -1;
  /** Where the handle of what it holds is, as seen from where it aims. */
  readonly held = new Vector3();
  private readonly ray: Line;
  private readonly tip: Mesh;
  private readonly body = new Mesh(new IcosahedronGeometry(1, 2).scale(0.024, 0.018, 0.05), new MeshLambertMaterial());

  /**
   * @param aim Where it points from, world space.
   * @param grip Where it is held, world space.
   */
  constructor(
    index: number,
    readonly aim: Object3D,
    readonly grip: Object3D,
  ) {
    this.pointer = `hand-${index}`;
    const line = new BufferGeometry();
    line.setAttribute("position", new BufferAttribute(new Float32Array([0, 0, 0, 0, 0, -1]), 3));
    this.ray = new Line(line, new LineBasicMaterial({ transparent: true, opacity: 0.5 }));
    this.tip = new Mesh(new SphereGeometry(0.006, 12, 8), new MeshBasicMaterial());
    this.reach(RAY_LENGTH);
    aim.add(this.ray, this.tip);
    grip.add(this.body);
  }

  /** Whether it is a hand without a controller, which can pinch and nothing else. */
  get bare(): boolean {
    return this.source?.hand != null;
  }

  colored(color: Color): void {
    (this.ray.material as LineBasicMaterial).color.copy(color);
    (this.tip.material as MeshBasicMaterial).color.copy(color);
    this.body.material.color.copy(color);
  }

  /** Its ray ends there, metres. */
  reach(length: number = RAY_LENGTH): void {
    this.ray.scale.z = length;
  }

  /** It trembles, where it can. */
  pulse(strength: number, ms: number): void {
    const actuator = this.source?.gamepad?.hapticActuators?.[0] as Pulser | undefined;
    actuator?.pulse?.(strength, ms)?.catch(() => undefined);
  }

  updateMatrices(): void {
    this.aim.updateWorldMatrix(true, false);
    this.grip.updateWorldMatrix(true, false);
  }

  dispose(): void {
    this.aim.remove(this.ray, this.tip);
    this.grip.remove(this.body);
    this.body.geometry.dispose();
    this.body.material.dispose();
    this.ray.geometry.dispose();
    (this.ray.material as LineBasicMaterial).dispose();
    this.tip.geometry.dispose();
    (this.tip.material as MeshBasicMaterial).dispose();
  }
}

/**
 * How much the palm of a hand looks at a point: 1 straight, 0 from its edge, below 0 with its back.
 *
 * The grip's x axis comes out of the palm of a left hand, and out of the back of a right one.
 */
export function palmFacing(grip: Matrix4, side: XRHandedness, eye: Vector3): number {
  palm.setFromMatrixColumn(grip, 0).normalize();
  if (side === "right") palm.negate();
  return palm.dot(toEye.setFromMatrixPosition(grip).subVectors(eye, toEye).normalize());
}

const palm = new Vector3();
const toEye = new Vector3();
