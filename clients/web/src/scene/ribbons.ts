/** The ribbons of all traces as one mesh that follows the particles. */

import { BufferAttribute, BufferGeometry, DynamicDrawUsage, GLSL3, Mesh, ShaderMaterial, Sphere } from "three";
import type { Trace } from "./backbone.ts";
import type { DrawnPositions } from "./picking.ts";
import { RibbonShape, SIDES, STEPS, writeTriangles } from "./ribbon-geometry.ts";
import { LIGHT, type SharedUniforms } from "./shading.ts";

const VERTEX = /* glsl */ `
  in vec3 aColor;
  out vec3 vAt;
  out vec3 vNormal;
  out vec3 vColor;
  void main() {
    vAt = (modelViewMatrix * vec4(position, 1.0)).xyz;
    vNormal = mat3(modelViewMatrix) * normal;
    vColor = aColor;
    gl_Position = projectionMatrix * vec4(vAt, 1.0);
  }
`;

const FRAGMENT = /* glsl */ `
  ${LIGHT}
  in vec3 vAt;
  in vec3 vNormal;
  in vec3 vColor;
  out vec4 color;
  void main() {
    vec3 base = mix(vColor / 12.92, pow((vColor + 0.055) / 1.055, vec3(2.4)), step(0.04045, vColor));
    color = linearToOutputTexel(vec4(shade(base, normalize(vNormal), vAt), 1.0));
  }
`;

/** The colour (0xRRGGBB) of a residue of a trace, by its count within it and what COIL, HELIX or STRAND it is. */
export type RibbonPaint = (trace: Trace, at: number, structure: number) => number;

export class Ribbons {
  readonly object: Mesh<BufferGeometry, ShaderMaterial>;
  private shapes: RibbonShape[] = [];
  private positions = new BufferAttribute(new Float32Array(0), 3);
  private normals = new BufferAttribute(new Float32Array(0), 3);
  private colors = new BufferAttribute(new Uint8Array(0), 3, true);

  constructor(uniforms: SharedUniforms) {
    const material = new ShaderMaterial({
      glslVersion: GLSL3,
      uniforms: uniforms.all(),
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
    });
    this.object = new Mesh(new BufferGeometry(), material);
    this.object.frustumCulled = false;
    this.object.visible = false;
  }

  /** Draws ribbons along these traces and no others. */
  set(traces: readonly Trace[]): void {
    this.object.geometry.dispose();
    this.shapes = traces.map((trace) => new RibbonShape(trace));
    const rings = this.shapes.reduce((sum, shape) => sum + shape.rings, 0);
    this.positions = new BufferAttribute(new Float32Array(rings * SIDES * 3), 3).setUsage(DynamicDrawUsage);
    this.normals = new BufferAttribute(new Float32Array(rings * SIDES * 3), 3).setUsage(DynamicDrawUsage);
    this.colors = new BufferAttribute(new Uint8Array(rings * SIDES * 3), 3, true);
    const index = new Uint32Array(Math.max(0, rings - this.shapes.length) * SIDES * 6);
    let written = 0;
    let first = 0;
    for (const shape of this.shapes) {
      written = writeTriangles(index, written, first, shape.rings);
      first += shape.rings * SIDES;
    }
    const geometry = new BufferGeometry();
    geometry.setAttribute("position", this.positions);
    geometry.setAttribute("normal", this.normals);
    geometry.setAttribute("aColor", this.colors);
    geometry.setIndex(new BufferAttribute(index, 1));
    geometry.boundingSphere = new Sphere();
    this.object.geometry = geometry;
    this.object.visible = rings > 0;
  }

  /** A frame came: helices and strands may be elsewhere. */
  assign(positions: Float32Array, paint: RibbonPaint): void {
    if (this.shapes.length === 0) return;
    let ring = 0;
    for (const shape of this.shapes) {
      shape.assign(positions);
      for (let at = 0; at < shape.rings; at++, ring++) {
        const residue = Math.min(Math.max(Math.round((at - 1) / STEPS), 0), shape.structure.length - 1);
        this.paintRing(ring, paint(shape.trace, residue, shape.structure[residue]!));
      }
    }
    this.colors.needsUpdate = true;
  }

  /** Moves the ribbons to where the particles are drawn. */
  follow(drawn: DrawnPositions): void {
    if (this.shapes.length === 0) return;
    const positions = this.positions.array as Float32Array;
    const normals = this.normals.array as Float32Array;
    let first = 0;
    for (const shape of this.shapes) {
      shape.write(drawn, positions, normals, first);
      first += shape.rings * SIDES;
    }
    this.positions.needsUpdate = true;
    this.normals.needsUpdate = true;
  }

  dispose(): void {
    this.object.geometry.dispose();
    this.object.material.dispose();
    this.object.removeFromParent();
  }

  private paintRing(ring: number, color: number): void {
    const bytes = this.colors.array;
    for (let at = ring * SIDES * 3, end = at + SIDES * 3; at < end; at += 3) {
      bytes[at] = color >> 16;
      bytes[at + 1] = (color >> 8) & 255;
      bytes[at + 2] = color & 255;
    }
  }
}
