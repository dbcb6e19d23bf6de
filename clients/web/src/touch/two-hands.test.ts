import { Matrix4, Quaternion, Vector3 } from "three";
import { describe, expect, it } from "vitest";
import { oneHandTransform, twoHandTransform } from "./two-hands.ts";

const v = (x: number, y: number, z: number) => new Vector3(x, y, z);
const expectAt = (matrix: Matrix4, from: Vector3, to: Vector3) =>
  expect(from.clone().applyMatrix4(matrix).distanceTo(to)).toBeLessThan(1e-9);
const anyhow = (a0: Vector3, b0: Vector3, a1: Vector3, b1: Vector3) =>
  twoHandTransform(a0, b0, a1, b1, 1e-6, 1e6, new Matrix4());

describe("two hands", () => {
  it("do nothing while they are still", () => {
    const matrix = anyhow(v(1, 2, 3), v(4, 5, 7), v(1, 2, 3), v(4, 5, 7));
    expectAt(matrix, v(8, -1, 2), v(8, -1, 2));
  });

  it("move", () => {
    expectAt(anyhow(v(0, 0, 0), v(1, 0, 0), v(0, 2, 0), v(1, 2, 0)), v(5, 5, 5), v(5, 7, 5));
  });

  it("stretch about the middle between them", () => {
    const matrix = anyhow(v(-1, 0, 0), v(1, 0, 0), v(-2, 0, 0), v(2, 0, 0));
    expectAt(matrix, v(0, 0, 0), v(0, 0, 0));
    expectAt(matrix, v(0, 1, 3), v(0, 2, 6));
  });

  it("turn", () => {
    expectAt(anyhow(v(-1, 0, 0), v(1, 0, 0), v(0, 0, 1), v(0, 0, -1)), v(1, 1, 0), v(0, 1, -1));
  });

  it("keep what they hold, whatever they do", () => {
    let seed = 1;
    const random = () => ((seed = (seed * 16807) % 2147483647) / 2147483647) * 4 - 2;
    for (let i = 0; i < 100; i++) {
      const [a0, b0, a1, b1] = [0, 1, 2, 3].map(() => v(random(), random(), random())) as [Vector3, Vector3, Vector3, Vector3];
      const matrix = anyhow(a0, b0, a1, b1);
      expectAt(matrix, a0, a1);
      expectAt(matrix, b0, b1);
    }
  });

  it("never mirror or shear", () => {
    const matrix = anyhow(v(0, 0, 0), v(1, 0, 0), v(0, 0, 0), v(-1, 0, 0));
    const scale = new Vector3();
    matrix.decompose(new Vector3(), new Quaternion(), scale);
    expect(matrix.determinant()).toBeCloseTo(1, 9);
    expect(scale.distanceTo(v(1, 1, 1))).toBeLessThan(1e-9);
  });

  it("do not stretch beyond the limits", () => {
    const matrix = twoHandTransform(v(-1, 0, 0), v(1, 0, 0), v(-9, 0, 0), v(9, 0, 0), 0.5, 2, new Matrix4());
    expectAt(matrix, v(1, 0, 0), v(2, 0, 0));
  });

  it("only move while they are in one place", () => {
    expectAt(anyhow(v(0, 0, 0), v(0, 0, 0), v(1, 0, 0), v(3, 0, 0)), v(0, 0, 0), v(2, 0, 0));
    expectAt(anyhow(v(-1, 0, 0), v(1, 0, 0), v(2, 0, 0), v(2, 0, 0)), v(1, 1, 1), v(3, 1, 1));
  });
});

it("one hand carries things with its place and its turn", () => {
  const start = new Matrix4().makeTranslation(1, 0, 0);
  const now = new Matrix4().makeRotationY(Math.PI / 2).setPosition(0, 1, 0);
  const matrix = oneHandTransform(start, now, new Matrix4());
  expectAt(matrix, v(1, 0, 0), v(0, 1, 0));
  expectAt(matrix, v(2, 0, 0), v(0, 1, -1));
});
