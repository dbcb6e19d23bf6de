/** Where the camera is: on a sphere around a point that it looks at. World space, metres, Y up. */

export interface Orbit {
  readonly target: readonly [number, number, number];
  /** Around the vertical, radians; 0 looks along -Z. */
  readonly yaw: number;
  /** Above the horizon, radians. */
  readonly pitch: number;
  readonly distance: number;
}

/** Vertical field of view, radians. */
export const FIELD_OF_VIEW = (40 * Math.PI) / 180;

const STEEPEST = (89 * Math.PI) / 180;
const NEAREST = 0.01;
const FARTHEST = 200;

/**
 * How the simulation is turned in the world, about the vertical: its Y is up and its Z looks away from who looks along -Z, as in
 * the headsets of all clients, so that people who stand around a molecule stand upright on a screen as well.
 */
export const SIMULATION_YAW = Math.PI;

/** What people see first: from the front, a little from above. */
export const FIRST_LOOK = { yaw: 0.5, pitch: 0.25 } as const;

export function turned(orbit: Orbit, yaw: number, pitch: number): Orbit {
  return { ...orbit, yaw: orbit.yaw + yaw, pitch: Math.min(Math.max(orbit.pitch + pitch, -STEEPEST), STEEPEST) };
}

/** A factor over 1 goes further away. */
export function zoomed(orbit: Orbit, factor: number): Orbit {
  return { ...orbit, distance: Math.min(Math.max(orbit.distance * factor, NEAREST), FARTHEST) };
}

/** Moves what is seen by (right, down) pixels of a canvas that is `height` pixels high. */
export function panned(orbit: Orbit, right: number, down: number, height: number): Orbit {
  const size = (2 * orbit.distance * Math.tan(FIELD_OF_VIEW / 2)) / Math.max(height, 1);
  const { yaw, pitch, target } = orbit;
  const x = -right * size;
  const y = down * size;
  return {
    ...orbit,
    target: [
      target[0] + Math.cos(yaw) * x - Math.sin(pitch) * Math.sin(yaw) * y,
      target[1] + Math.cos(pitch) * y,
      target[2] - Math.sin(yaw) * x - Math.sin(pitch) * Math.cos(yaw) * y,
    ],
  };
}

/** Where the eye is. */
export function eyeOf({ target, yaw, pitch, distance }: Orbit): [number, number, number] {
  return [
    target[0] + distance * Math.cos(pitch) * Math.sin(yaw),
    target[1] + distance * Math.sin(pitch),
    target[2] + distance * Math.cos(pitch) * Math.cos(yaw),
  ];
}

/** The orbit of an eye there that looks at `target`; null where there is no such look. Steeper ones than there are become the steepest. */
export function orbitFrom(eye: readonly [number, number, number], target: readonly [number, number, number]): Orbit | null {
  const [x, y, z] = [eye[0] - target[0], eye[1] - target[1], eye[2] - target[2]];
  const distance = Math.hypot(x, y, z);
  if (!(distance > 0 && distance < Number.POSITIVE_INFINITY)) return null;
  const orbit: Orbit = { target: [target[0], target[1], target[2]], yaw: Math.atan2(x, z), pitch: Math.asin(y / distance), distance };
  return zoomed(turned(orbit, 0, 0), 1);
}

/** The same look, where the way to it from `from` is less than half a turn. */
export function nearestTurn(orbit: Orbit, from: Orbit): Orbit {
  const turn = 2 * Math.PI;
  return { ...orbit, yaw: orbit.yaw + turn * Math.round((from.yaw - orbit.yaw) / turn) };
}

/**
 * The same look, from as near as all of the points are seen, and so that they are in the middle of what is seen; `aspect` is width
 * over height. What it turns around is as deep in the picture as the centre of the first points.
 *
 * @param groups 3N each, in the world turned and scaled by `place`; those that are not numbers are passed over.
 * @param margin What is to be seen around each point, metres.
 */
export function fitted(orbit: Orbit, groups: readonly Float32Array[], place: Placing, margin: number, aspect: number): Orbit {
  const ball = groups[0] ? boundingBall(groups[0]) : null;
  if (!ball) return orbit;
  const centre = place(...ball.centre);
  const sinYaw = Math.sin(orbit.yaw);
  const cosYaw = Math.cos(orbit.yaw);
  const sinPitch = Math.sin(orbit.pitch);
  const cosPitch = Math.cos(orbit.pitch);
  const tall = Math.tan(FIELD_OF_VIEW / 2);
  const wide = tall * Math.max(aspect, 0.1);
  // Of each side of the picture, how far out it has to be in the plane of the centre; sides lean out with the depth.
  let [left, right, down, up] = [0, 0, 0, 0];
  for (const points of groups) {
    const stride = strideOver(points);
    for (let at = 0; at + 2 < points.length; at += stride) {
      const [x, y, z] = place(points[at]!, points[at + 1]!, points[at + 2]!);
      const dx = x - centre[0];
      const dy = y - centre[1];
      const dz = z - centre[2];
      if (!(Math.abs(dx) < FARTHEST && Math.abs(dy) < FARTHEST && Math.abs(dz) < FARTHEST)) continue;
      const across = cosYaw * dx - sinYaw * dz;
      const above = -sinPitch * sinYaw * dx + cosPitch * dy - sinPitch * cosYaw * dz;
      const toward = cosPitch * sinYaw * dx + sinPitch * dy + cosPitch * cosYaw * dz;
      left = Math.min(left, across - toward * wide - margin);
      right = Math.max(right, across + toward * wide + margin);
      down = Math.min(down, above - toward * tall - margin);
      up = Math.max(up, above + toward * tall + margin);
    }
  }
  const distance = Math.max((right - left) / (2 * wide), (up - down) / (2 * tall));
  const [x, y] = [(left + right) / 2, (down + up) / 2];
  const target: [number, number, number] = [
    centre[0] + cosYaw * x - sinPitch * sinYaw * y,
    centre[1] + cosPitch * y,
    centre[2] - sinYaw * x - sinPitch * cosYaw * y,
  ];
  return zoomed({ ...orbit, target, distance: distance * 1.04 || 1 }, 1);
}

/** Where a point of the simulation (nm) is in the world (metres). */
export type Placing = (x: number, y: number, z: number) => [number, number, number];

/**
 * From where something long is seen from its side: the yaw that looks square to the longest horizontal direction of the points
 * (3N, nm, put into the world by `place`), a little off so that depth shows, and more so where the picture is taller than wide and
 * has no room for length; the first look's where none is much longer.
 */
export function broadside(points: Float32Array, place: Placing, aspect: number): number {
  const ball = boundingBall(points);
  if (!ball) return FIRST_LOOK.yaw;
  const [cx, , cz] = place(...ball.centre);
  let xx = 0;
  let xz = 0;
  let zz = 0;
  const stride = strideOver(points);
  for (let at = 0; at + 2 < points.length; at += stride) {
    const [x, , z] = place(points[at]!, points[at + 1]!, points[at + 2]!);
    const dx = x - cx;
    const dz = z - cz;
    if (!(Math.abs(dx) < FARTHEST && Math.abs(dz) < FARTHEST)) continue;
    xx += dx * dx;
    xz += dx * dz;
    zz += dz * dz;
  }
  const middle = (xx + zz) / 2;
  const spread = Math.hypot((xx - zz) / 2, xz);
  if (!(spread > 0.25 * middle)) return FIRST_LOOK.yaw;
  // At yaw 0 the camera looks along -Z of the world, X to its right.
  const yaw = 0.5 * Math.atan2(-2 * xz, xx - zz);
  return yaw + 0.3 + 0.6 * Math.min(Math.max(1 - aspect, 0) * 2, 1);
}

/** From one to the next that counts: a hundred thousand points say no more than an even choice of some of them. */
function strideOver(points: Float32Array): number {
  return Math.max(1, Math.floor(points.length / 3 / 20_000)) * 3;
}

/** Part of the way from one to another; distances in proportion. */
export function between(from: Orbit, to: Orbit, part: number): Orbit {
  const mix = (a: number, b: number): number => a + (b - a) * part;
  return {
    target: [
      mix(from.target[0], to.target[0]),
      mix(from.target[1], to.target[1]),
      mix(from.target[2], to.target[2]),
    ],
    yaw: mix(from.yaw, to.yaw),
    pitch: mix(from.pitch, to.pitch),
    distance: from.distance * (to.distance / from.distance) ** part,
  };
}

/** The box around all positions (3N, nm) that are numbers, as its centre and half its diagonal; null where there are none. */
export function boundingBall(positions: Float32Array): { centre: [number, number, number]; radius: number } | null {
  let x0 = Number.POSITIVE_INFINITY;
  let y0 = x0;
  let z0 = x0;
  let x1 = Number.NEGATIVE_INFINITY;
  let y1 = x1;
  let z1 = x1;
  for (let at = 0; at + 2 < positions.length; at += 3) {
    const x = positions[at]!;
    const y = positions[at + 1]!;
    const z = positions[at + 2]!;
    if (!(Math.abs(x) < 1e6 && Math.abs(y) < 1e6 && Math.abs(z) < 1e6)) continue;
    if (x < x0) x0 = x;
    if (x > x1) x1 = x;
    if (y < y0) y0 = y;
    if (y > y1) y1 = y;
    if (z < z0) z0 = z;
    if (z > z1) z1 = z;
  }
  if (x1 < x0) return null;
  const radius = Math.hypot(x1 - x0, y1 - y0, z1 - z0) / 2;
  return { centre: [(x0 + x1) / 2, (y0 + y1) / 2, (z0 + z1) / 2], radius };
}
