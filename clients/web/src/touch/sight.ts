/** What is seen where: the particle under a point of the page, the eye, and the directions of the screen. Simulation space. */

import { Matrix4, Vector3 } from "three";
import type { Hit, SceneView, Session } from "../contracts.ts";
import { set, type Point, type ReadonlyPoint } from "./drag.ts";

const DEPTH_SAMPLES = 32;

/** What it returns is written over with the next call. */
export class Sight {
  private readonly here: Point = [0, 0, 0];
  private readonly screen = { right: [0, 0, 0] as Point, up: [0, 0, 0] as Point };
  private readonly depth: Point = [0, 0, 0];
  private readonly sample: Point = [0, 0, 0];
  private readonly vector = new Vector3();
  private readonly inverse = new Matrix4();

  constructor(
    private readonly session: Session,
    private readonly view: SceneView,
  ) {}

  /** The particle at a point of the page, or the nearest so many pixels beside. */
  pick(x: number, y: number, slackPx: number): Hit | null {
    const pixel = this.view.nmPerPixel(this.middleDepth());
    return this.view.pick(this.view.rayAt(x, y), Number.isFinite(pixel) ? pixel * slackPx : 0);
  }

  /** A particle about the middle of the picture. */
  middle(): Hit | null {
    const { left, top, width, height } = this.view.canvas.getBoundingClientRect();
    return this.pick(left + width / 2, top + height / 2, Math.min(width, height) / 4);
  }

  eye(): ReadonlyPoint {
    this.look();
    return this.vector.setFromMatrixPosition(this.view.camera.matrixWorld).applyMatrix4(this.inverse).toArray(this.here);
  }

  /** Unit vectors to the right and up on the screen. */
  axes(): { readonly right: ReadonlyPoint; readonly up: ReadonlyPoint } {
    this.look();
    this.axis(0, this.screen.right);
    this.axis(1, this.screen.up);
    return this.screen;
  }

  private look(): void {
    this.view.camera.updateWorldMatrix(true, false);
    this.inverse.copy(this.view.simulationRoot.matrixWorld).invert();
  }

  private axis(column: number, out: Point): void {
    this.vector.setFromMatrixColumn(this.view.camera.matrixWorld, column).transformDirection(this.inverse).toArray(out);
  }

  /** About the middle of the system: how large a pixel is there is how large it is at most atoms. */
  private middleDepth(): ReadonlyPoint {
    const { frame } = this.session;
    set(this.depth, 0, 0, 0);
    if (frame === null || frame.particleCount === 0) return this.depth;
    const stride = Math.max(1, Math.floor(frame.particleCount / DEPTH_SAMPLES));
    let count = 0;
    for (let i = 0; i < frame.particleCount; i += stride, count++) {
      const position = this.view.positionOf(i, this.sample);
      for (let axis = 0; axis < 3; axis++) this.depth[axis] = this.depth[axis]! + position[axis]!;
    }
    return set(this.depth, this.depth[0] / count, this.depth[1] / count, this.depth[2] / count);
  }
}
