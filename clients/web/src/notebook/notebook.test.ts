import { describe, expect, it } from "vitest";
import type { CameraPlace } from "../contracts.ts";
import { CameraNews, placeOf } from "./camera-news.ts";
import { particlesOf } from "./model.ts";
import { lightness } from "./theme.ts";

const at = (x: number): CameraPlace => ({ position: [x, 0, 5], target: [0, 0, 0] });

describe("the place of the camera", () => {
  it("is told once, when the camera stands still", () => {
    const news = new CameraNews();
    expect(news.look(at(0))).toBeNull();
    expect(news.look(at(0))).toEqual(at(0));
    expect(news.look(at(0))).toBeNull();
    for (const x of [1, 2, 3]) expect(news.look(at(x))).toBeNull();
    expect(news.look(at(3))).toEqual(at(3));
    expect(news.look(at(3.000001))).toBeNull();
  });

  it("is not told back to who has set it", () => {
    const news = new CameraNews();
    news.know(at(4));
    expect(news.knows(at(4))).toBe(true);
    expect(news.look(at(4))).toBeNull();
    expect(news.look(at(4))).toBeNull();
    expect(news.knows(at(5))).toBe(false);
  });

  it("is nothing but two points of numbers", () => {
    expect(placeOf(at(1))).toEqual(at(1));
    for (const said of [null, 1, {}, { position: [0, 0, 1] }, { position: [0, 0, "1"], target: [0, 0, 0] }, { position: [0, 0], target: [0, 0, 0] }, { position: [0, 0, NaN], target: [0, 0, 0] }]) {
      expect(placeOf(said)).toBeNull();
    }
  });
});

describe("particles", () => {
  it("are whole numbers from 0 on", () => {
    expect(particlesOf([1, -1, 0.5, "2", null, 3])).toEqual([1, 3]);
    expect(particlesOf("12")).toEqual([]);
  });
});

describe("lightness", () => {
  it("is that of colours that hide what is behind them", () => {
    expect(lightness("rgb(255, 255, 255)")).toBeCloseTo(1);
    expect(lightness("rgba(17, 17, 17, 0.9)")).toBeLessThan(0.1);
    expect(lightness("color(srgb 0.1 0.1 0.1)")).toBeLessThan(0.2);
    expect(lightness("rgba(0, 0, 0, 0)")).toBeNull();
    expect(lightness("transparent")).toBeNull();
  });
});
