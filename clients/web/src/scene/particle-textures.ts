/** The particles on the GPU: a texel for each in textures of positions and colours. */

import { DataTexture, FloatType, NearestFilter, RGBAFormat, RGBFormat, SRGBColorSpace, UnsignedByteType } from "three";
import { jumpLimit, startMovement } from "./interpolation.ts";
import type { DrawnPositions } from "./picking.ts";
import { ROW_BITS, type SharedUniforms } from "./shading.ts";

/** Owns the arrays that the textures are made of; they are made anew only where the number of particles outgrows them. */
export class ParticleTextures implements DrawnPositions {
  count = 0;
  fraction = 1;
  before: Float32Array = new Float32Array(0);
  after: Float32Array = new Float32Array(0);
  colors: Uint8Array = new Uint8Array(0);
  private rows = 0;
  private beforeTexture: DataTexture | null = null;
  private afterTexture: DataTexture | null = null;
  private colorTexture: DataTexture | null = null;

  constructor(private readonly uniforms: SharedUniforms) {}

  /** Makes room for so many particles; what was known is void where there was not enough, which is what it returns. */
  resize(count: number): boolean {
    this.count = count;
    const rows = Math.max(1, Math.ceil(count / (1 << ROW_BITS)));
    if (rows <= this.rows && rows * 4 >= this.rows) return false;
    this.dispose();
    this.rows = rows;
    const width = 1 << ROW_BITS;
    this.before = new Float32Array(width * rows * 3);
    this.after = new Float32Array(width * rows * 3);
    this.colors = new Uint8Array(width * rows * 4);
    this.beforeTexture = positionTexture(this.before, width, rows);
    this.afterTexture = positionTexture(this.after, width, rows);
    this.colorTexture = new DataTexture(this.colors, width, rows, RGBAFormat, UnsignedByteType);
    this.colorTexture.colorSpace = SRGBColorSpace;
    this.uniforms.uBefore.value = this.beforeTexture;
    this.uniforms.uAfter.value = this.afterTexture;
    this.uniforms.uColors.value = this.colorTexture;
    return true;
  }

  /** The particles are at `positions` (3N, nm) from now on, without moving there. */
  place(positions: Float32Array): void {
    const length = this.count * 3;
    this.after.set(positions.length > length ? positions.subarray(0, length) : positions);
    this.before.set(this.after);
    this.moved();
  }

  /** The particles set off for `positions` (3N, nm), from where they are drawn. */
  move(positions: Float32Array, box: Float32Array | null): void {
    startMovement(this.before, this.after, this.fraction, positions, this.count, jumpLimit(box));
    this.moved();
  }

  /** How far they have come. */
  setFraction(fraction: number): void {
    this.fraction = fraction;
    this.uniforms.uFraction.value = fraction;
  }

  /** `colors` has been written to. */
  colorsWritten(): void {
    if (this.colorTexture) this.colorTexture.needsUpdate = true;
  }

  /** Uploads everything again: the context is another. */
  refresh(): void {
    this.moved();
    this.colorsWritten();
  }

  /** Nothing is on the graphics card any more. */
  forget(): void {
    this.beforeTexture?.dispose();
    this.afterTexture?.dispose();
    this.colorTexture?.dispose();
  }

  dispose(): void {
    this.forget();
    this.rows = 0;
  }

  private moved(): void {
    if (this.beforeTexture) this.beforeTexture.needsUpdate = true;
    if (this.afterTexture) this.afterTexture.needsUpdate = true;
  }
}

function positionTexture(data: Float32Array<ArrayBuffer> | Float32Array, width: number, rows: number): DataTexture {
  const texture = new DataTexture(data as Float32Array<ArrayBuffer>, width, rows, RGBFormat, FloatType);
  texture.internalFormat = "RGB32F";
  texture.minFilter = NearestFilter;
  texture.magFilter = NearestFilter;
  texture.needsUpdate = true;
  return texture;
}
