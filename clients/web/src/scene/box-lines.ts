/** The edges of the periodic box, of any shape. */

import { BufferAttribute, BufferGeometry, type Color, LineBasicMaterial, LineSegments, Sphere } from "three";

/** Corners of each of the twelve edges, as sums of box vectors: bit 0 is the first vector, and so on. */
const EDGES = [0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 1, 3, 4, 6, 5, 7, 0, 4, 1, 5, 2, 6, 3, 7];

/** Writes the ends of the twelve edges (72 numbers, nm) of a box whose rows are its vectors (9 numbers, nm). */
export function writeEdges(box: Float32Array, ends: Float32Array): void {
  EDGES.forEach((corner, at) => {
    for (let axis = 0; axis < 3; axis++) {
      ends[at * 3 + axis] =
        (corner & 1 ? box[axis]! : 0) + (corner & 2 ? box[3 + axis]! : 0) + (corner & 4 ? box[6 + axis]! : 0);
    }
  });
}

export class BoxLines {
  readonly object: LineSegments<BufferGeometry, LineBasicMaterial>;
  private readonly ends = new BufferAttribute(new Float32Array(72), 3);
  private readonly known = new Float32Array(9);
  private shown = true;
  private there = false;

  constructor() {
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", this.ends);
    geometry.boundingSphere = new Sphere();
    this.object = new LineSegments(geometry, new LineBasicMaterial({ transparent: true, opacity: 0.7 }));
    this.object.frustumCulled = false;
    this.object.visible = false;
  }

  set(box: Float32Array | null): void {
    this.there = box !== null && box.length >= 9 && box.every(Number.isFinite) && box.some((part) => part !== 0);
    this.object.visible = this.shown && this.there;
    if (!this.there || !box || this.known.every((part, at) => part === box[at])) return;
    this.known.set(box.subarray(0, 9));
    writeEdges(box, this.ends.array as Float32Array);
    this.ends.needsUpdate = true;
  }

  show(on: boolean): void {
    this.shown = on;
    this.object.visible = on && this.there;
  }

  setColor(color: Color): void {
    this.object.material.color.copy(color);
  }

  dispose(): void {
    this.object.geometry.dispose();
    this.object.material.dispose();
    this.object.removeFromParent();
  }
}
