import { describe, expect, it } from "vitest";
import { between, boundingBall, broadside, eyeOf, FIELD_OF_VIEW, fitted, nearestTurn, type Orbit, orbitFrom, panned, turned, zoomed } from "./orbit.ts";

const ORBIT: Orbit = { target: [0, 0, 0], yaw: 0, pitch: 0, distance: 2 };
const AS_IT_IS = (x: number, y: number, z: number): [number, number, number] => [x, y, z];

describe("orbit", () => {
  it("looks at its target from the distance that it has", () => {
    expect(eyeOf(ORBIT)).toEqual([0, 0, 2]);
    const eye = eyeOf(turned(ORBIT, 1, 0.5));
    expect(Math.hypot(...eye)).toBeCloseTo(2);
    expect(eye[1]).toBeGreaterThan(0);
  });

  it("stops short of the poles, and of nothing and nowhere", () => {
    expect(turned(ORBIT, 0, 9).pitch).toBeLessThan(Math.PI / 2);
    expect(zoomed(ORBIT, 1e-9).distance).toBeGreaterThan(0);
    expect(zoomed(ORBIT, 1e9).distance).toBeLessThan(1000);
  });

  it("moves what is seen along with the pointer", () => {
    const height = 500;
    const moved = panned(ORBIT, height, 0, height);
    expect(moved.target[0]).toBeCloseTo(-2 * 2 * Math.tan(FIELD_OF_VIEW / 2));
    expect(panned(ORBIT, 0, 10, height).target[1]).toBeGreaterThan(0);
    const aside = panned(turned(ORBIT, Math.PI / 2, 0), 10, 0, height);
    expect(aside.target[2]).toBeGreaterThan(0);
    expect(aside.target[0]).toBeCloseTo(0);
  });

  it("is told by where its eye is and what it looks at", () => {
    const orbit = turned({ ...ORBIT, target: [1, -2, 0.5] }, 2.5, 0.7);
    const again = orbitFrom(eyeOf(orbit), orbit.target)!;
    expect(again.target).toEqual(orbit.target);
    for (const key of ["yaw", "pitch", "distance"] as const) expect(again[key]).toBeCloseTo(orbit[key]);
    expect(orbitFrom([0, 5, 0], [0, 0, 0])!.pitch).toBeLessThan(Math.PI / 2);
    for (const eye of [[0, 0, 0], [Number.NaN, 0, 1], [Number.POSITIVE_INFINITY, 0, 0]] as const) expect(orbitFrom(eye, [0, 0, 0])).toBeNull();
  });

  it("goes the short way round", () => {
    const near = nearestTurn({ ...ORBIT, yaw: -3 }, { ...ORBIT, yaw: 3 + 4 * Math.PI });
    expect(near.yaw).toBeCloseTo(-3 + 6 * Math.PI);
  });

  it("is between two at any part of the way", () => {
    const far = { ...ORBIT, distance: 8, yaw: 1 };
    expect(between(ORBIT, far, 0.5).distance).toBeCloseTo(4);
    expect(between(ORBIT, far, 1)).toEqual(far);
  });
});

/** How far out in the picture of that look each point is: 1 is at its edge, across and up. */
function seenAt(look: Orbit, points: Float32Array, aspect: number): [number, number][] {
  const { yaw, pitch } = look;
  const [ex, ey, ez] = eyeOf(look);
  return Array.from({ length: points.length / 3 }, (_, at) => {
    const [x, y, z] = [points[at * 3]! - ex, points[at * 3 + 1]! - ey, points[at * 3 + 2]! - ez];
    const depth = -(Math.cos(pitch) * Math.sin(yaw) * x + Math.sin(pitch) * y + Math.cos(pitch) * Math.cos(yaw) * z);
    const right = Math.cos(yaw) * x - Math.sin(yaw) * z;
    const up = -Math.sin(pitch) * Math.sin(yaw) * x + Math.cos(pitch) * y - Math.sin(pitch) * Math.cos(yaw) * z;
    const tall = Math.tan(FIELD_OF_VIEW / 2) * depth;
    return [right / (tall * aspect), up / tall];
  });
}

describe("fitted", () => {
  const points = Float32Array.of(-3, 0, 0, 3, 0.5, 0, 0, -1, 2);

  it("has every point in view, and the outermost near its edges on both sides", () => {
    for (const aspect of [0.46, 1, 1.5]) {
      const seen = seenAt(fitted({ ...ORBIT, yaw: 0.4, pitch: 0.3 }, [points], AS_IT_IS, 0, aspect), points, aspect);
      const across = seen.map(([right]) => right);
      const above = seen.map(([, up]) => up);
      expect(Math.max(...[...across, ...above].map(Math.abs))).toBeLessThan(1);
      const filled = Math.max(Math.max(...across) - Math.min(...across), Math.max(...above) - Math.min(...above)) / 2;
      expect(filled).toBeGreaterThan(0.9);
    }
  });

  it("has all of further points in view as well, and turns about the depth of the first", () => {
    const corners = Float32Array.of(-4, -2, -3, 4, 2, 3, 4, -2, -3, -4, 2, 9);
    const look = fitted({ ...ORBIT, yaw: 0.4, pitch: 0.3 }, [points, corners], AS_IT_IS, 0.1, 1.5);
    for (const each of [...seenAt(look, points, 1.5), ...seenAt(look, corners, 1.5)].flat()) expect(Math.abs(each)).toBeLessThan(1);
    const alone = fitted({ ...ORBIT, yaw: 0, pitch: 0 }, [points], AS_IT_IS, 0, 1.5);
    const both = fitted({ ...ORBIT, yaw: 0, pitch: 0 }, [points, corners], AS_IT_IS, 0, 1.5);
    expect(both.target[2]).toBeCloseTo(alone.target[2]);
    expect(both.distance).toBeGreaterThan(alone.distance);
  });

  it("keeps to where it is where there is nothing to look at", () => {
    expect(fitted(ORBIT, [new Float32Array(0)], AS_IT_IS, 0.1, 1)).toBe(ORBIT);
    expect(fitted(ORBIT, [Float32Array.of(Number.NaN, 0, 0)], AS_IT_IS, 0.1, 1)).toBe(ORBIT);
    expect(fitted(ORBIT, [Float32Array.of(1, 1, 1)], AS_IT_IS, 0, 1).distance).toBeGreaterThan(0);
  });
});

describe("broadside", () => {
  it("looks square at what is long and lies, wherever it points", () => {
    for (const angle of [0, 0.4, 1.2, Math.PI / 2, 2.5]) {
      const [x, z] = [Math.cos(angle), Math.sin(angle)];
      const yaw = broadside(Float32Array.of(-5 * x, 0, -5 * z, 5 * x, 0, 5 * z, 0, 0.1, 0), AS_IT_IS, 1.5);
      const [ex, , ez] = eyeOf({ ...ORBIT, yaw: yaw - 0.3, distance: 1 });
      expect(ex * x + ez * z).toBeCloseTo(0);
    }
  });

  it("turns what is long to point into a picture that is taller than wide", () => {
    const rod = Float32Array.of(-5, 0, 0, 5, 0, 0, 0, 0.1, 0);
    const [wide, tall] = [broadside(rod, AS_IT_IS, 1.5), broadside(rod, AS_IT_IS, 0.46)];
    expect(tall - wide).toBeCloseTo(0.6);
    const distance = (yaw: number): number => fitted({ ...ORBIT, yaw }, [rod], AS_IT_IS, 0, 0.46).distance;
    expect(distance(tall)).toBeLessThan(distance(wide));
  });

  it("heeds how the points are put into the world", () => {
    const points = Float32Array.of(-5, 0, 0, 5, 0, 0, 0, 0.1, 0);
    const across = broadside(points, (x, y, z) => [z, y, x], 1.5);
    expect(Math.abs(across - broadside(points, AS_IT_IS, 1.5))).toBeCloseTo(Math.PI / 2);
  });

  it("makes nothing of what is round", () => {
    const round = Float32Array.of(1, 0, 0, -1, 0, 0, 0, 0, 1, 0, 0, -1);
    expect(broadside(round, AS_IT_IS, 1.5)).toBe(broadside(new Float32Array(0), AS_IT_IS, 1.5));
    const standing = Float32Array.of(0, -5, 0, 0, 5, 0, 0.1, 0, 0, 0, 0, 0.1);
    expect(broadside(standing, AS_IT_IS, 1.5)).toBe(broadside(round, AS_IT_IS, 1.5));
  });
});

describe("boundingBall", () => {
  it("holds all points that are numbers", () => {
    const ball = boundingBall(Float32Array.of(0, 0, 0, 2, 0, 0, Number.NaN, 9, 9, Number.POSITIVE_INFINITY, 0, 0));
    expect(ball).toEqual({ centre: [1, 0, 0], radius: 1 });
    expect(boundingBall(new Float32Array(0))).toBeNull();
  });
});
