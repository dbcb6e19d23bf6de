/** How a handle follows a pointer: in the plane that faces the camera, and in depth with the wheel. */

export type Point = [number, number, number];
export type ReadonlyPoint = readonly [number, number, number];

/** One notch of a mouse wheel (100 px) changes the distance from the eye by about a tenth. */
const DEPTH_PER_PIXEL = 0.001;
const DEPTH_PER_LINE = 0.04;
const MAX_DEPTH_STEP = 0.5;

/** Where a ray meets the plane through `at` that `normal` is perpendicular to; `at` itself where it never does. */
export function planePoint(origin: ReadonlyPoint, direction: ReadonlyPoint, at: ReadonlyPoint, normal: ReadonlyPoint, out: Point): Point {
  const along = dot(direction, normal);
  const ahead = (at[0] - origin[0]) * normal[0] + (at[1] - origin[1]) * normal[1] + (at[2] - origin[2]) * normal[2];
  const distance = ahead / along;
  if (!(distance > 0) || !Number.isFinite(distance)) return set(out, at[0], at[1], at[2]);
  return set(out, origin[0] + direction[0] * distance, origin[1] + direction[1] * distance, origin[2] + direction[2] * distance);
}

/**
 * The handle of a drag. It starts where the caller says (the centre of what is held, so that nothing is pulled yet) and from
 * then on keeps its distance to the pointer.
 */
export class Drag {
  readonly handle: Point;
  private readonly offset: Point;

  /** @param pointer Where the pointer is, at the depth of `handle`, simulation space. */
  constructor(handle: ReadonlyPoint, pointer: ReadonlyPoint) {
    this.handle = [handle[0], handle[1], handle[2]];
    this.offset = [handle[0] - pointer[0], handle[1] - pointer[1], handle[2] - pointer[2]];
  }

  /** The handle has followed the pointer, which is at the handle's depth. */
  move(pointer: ReadonlyPoint): void {
    set(this.handle, pointer[0] + this.offset[0], pointer[1] + this.offset[1], pointer[2] + this.offset[2]);
  }

  /** The handle is `factor` times as far from the eye and is seen where it was. */
  deepen(eye: ReadonlyPoint, factor: number): void {
    const { handle, offset } = this;
    for (let axis = 0; axis < 3; axis++) {
      handle[axis] = eye[axis]! + (handle[axis]! - eye[axis]!) * factor;
      offset[axis] = offset[axis]! * factor;
    }
  }
}

/**
 * By what factor a turn of the wheel changes the distance from the eye: away from the person is away from the eye, and what is
 * turned back is undone.
 *
 * @param mode WheelEvent.deltaMode: 0 pixels, 1 lines, 2 pages.
 */
export function depthFactor(deltaY: number, mode: number): number {
  const step = -deltaY * (mode === 0 ? DEPTH_PER_PIXEL : DEPTH_PER_LINE);
  if (!Number.isFinite(step)) return 1;
  return Math.exp(Math.min(MAX_DEPTH_STEP, Math.max(-MAX_DEPTH_STEP, step)));
}

/**
 * The handle, `dx` to the right and `dy` up as seen on the screen.
 *
 * @param right Unit vector to the right of the screen, simulation space.
 * @param up Unit vector up the screen, simulation space.
 */
export function nudged(handle: ReadonlyPoint, right: ReadonlyPoint, up: ReadonlyPoint, dx: number, dy: number, out: Point): Point {
  return set(
    out,
    handle[0] + right[0] * dx + up[0] * dy,
    handle[1] + right[1] * dx + up[1] * dy,
    handle[2] + right[2] * dx + up[2] * dy,
  );
}

export function set(out: Point, x: number, y: number, z: number): Point {
  out[0] = x;
  out[1] = y;
  out[2] = z;
  return out;
}

export function distance(a: ReadonlyPoint, b: ReadonlyPoint): number {
  return Math.hypot(a[0] - b[0], a[1] - b[1], a[2] - b[2]);
}

function dot(a: ReadonlyPoint, b: ReadonlyPoint): number {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}
