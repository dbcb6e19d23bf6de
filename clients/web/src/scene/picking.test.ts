import { describe, expect, it } from "vitest";
import { type DrawnPositions, pickParticle } from "./picking.ts";

function drawn(positions: number[], fraction = 1, before = positions): DrawnPositions {
  return {
    before: Float32Array.from(before),
    after: Float32Array.from(positions),
    fraction,
    count: positions.length / 3,
  };
}

const ALONG_X = { origin: [-10, 0, 0], direction: [1, 0, 0] } as const;

describe("pickParticle", () => {
  it("finds the nearest sphere that the ray meets, and where", () => {
    const hit = pickParticle(ALONG_X, drawn([2, 0, 0, 0, 0, 0, 1, 0, 0]), Float32Array.of(0.1, 0.1, 0.1), 0);
    expect(hit?.particle).toBe(1);
    expect(hit?.distance).toBeCloseTo(9.9);
    expect(hit?.point[0]).toBeCloseTo(-0.1);
  });

  it("takes what is met before what is nearly met, though it is further away", () => {
    const hit = pickParticle(ALONG_X, drawn([0, 0.15, 0, 5, 0, 0]), Float32Array.of(0.1, 0.1), 0.1);
    expect(hit?.particle).toBe(1);
  });

  it("takes the one that it misses by the least where it meets none", () => {
    const radii = Float32Array.of(0.1, 0.1, 0.1);
    const at = drawn([0, 0.18, 0, 3, 0.15, 0, 4, 0.5, 0]);
    expect(pickParticle(ALONG_X, at, radii, 0.1)?.particle).toBe(1);
    expect(pickParticle(ALONG_X, at, radii, 0.04)).toBeNull();
  });

  it("lets the slack grow with the distance", () => {
    const at = drawn([0, 0.2, 0]);
    expect(pickParticle(ALONG_X, at, Float32Array.of(0.1), 0, 0.02)?.particle).toBe(0);
    expect(pickParticle(ALONG_X, at, Float32Array.of(0.1), 0, 0.005)).toBeNull();
  });

  it("passes over what is hidden, behind, or nowhere", () => {
    const at = drawn([0, 0, 0, -20, 0, 0, Number.NaN, 0, 0]);
    expect(pickParticle(ALONG_X, at, Float32Array.of(0, 0.1, 0.1), 0.5)).toBeNull();
  });

  it("meets particles where they are drawn, between two frames", () => {
    const at = drawn([0, 2, 0], 0.5, [0, -2, 0]);
    expect(pickParticle(ALONG_X, at, Float32Array.of(0.1), 0)?.particle).toBe(0);
  });

  it("meets the far side from within a sphere, and takes directions of any length", () => {
    const hit = pickParticle({ origin: [0, 0, 0], direction: [0, 0, 7] }, drawn([0, 0, 0]), Float32Array.of(0.5), 0);
    expect(hit?.point[2]).toBeCloseTo(0.5);
    expect(pickParticle({ origin: [0, 0, 0], direction: [0, 0, 0] }, drawn([0, 0, 0]), Float32Array.of(1), 0)).toBeNull();
  });

  it("agrees with a search through all particles", () => {
    const count = 2000;
    let seed = 7;
    const random = (): number => ((seed = (seed * 48271) % 2147483647) / 2147483647) * 4 - 2;
    const positions = Array.from({ length: count * 3 }, random);
    const radii = new Float32Array(count).fill(0.08);
    for (let ray = 0; ray < 20; ray++) {
      const direction = [1, random() * 0.2, random() * 0.2] as const;
      const size = Math.hypot(...direction);
      let expected = -1;
      let nearest = Number.POSITIVE_INFINITY;
      for (let at = 0; at < count; at++) {
        const [x, y, z] = [positions[at * 3]! + 10, positions[at * 3 + 1]!, positions[at * 3 + 2]!];
        const along = (x * direction[0] + y * direction[1] + z * direction[2]) / size;
        const apart = x * x + y * y + z * z - along * along;
        const met = along - Math.sqrt(0.08 * 0.08 - apart);
        if (met < nearest) [nearest, expected] = [met, at];
      }
      const hit = pickParticle({ origin: [-10, 0, 0], direction }, drawn(positions), radii, 0);
      expect(hit?.particle ?? -1).toBe(expected);
    }
  });
});
