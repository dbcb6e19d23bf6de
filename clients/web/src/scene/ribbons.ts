/** The ribbons of all traces as one mesh that follows the particles. */

import {
  BufferAttribute,
  BufferGeometry,
  DataTexture,
  FloatType,
  GLSL3,
  type IUniform,
  Mesh,
  NearestFilter,
  RGBAFormat,
  ShaderMaterial,
  Sphere,
} from "three";
import type { Trace } from "./backbone.ts";
import type { DrawnPositions } from "./picking.ts";
import {
  COIL_AXES,
  FIRST_POINT,
  HAS_AFTER,
  HAS_BEFORE,
  LAST_POINT,
  PER_KNOT,
  RibbonShape,
  SIDES,
  STEPS,
  STRAND_AXES,
  writeTriangles,
  writeVertices,
} from "./ribbon-geometry.ts";
import { LIGHT, type SharedUniforms } from "./shading.ts";

/** Knots of a row of the texture that they are in. */
const ROW = 512;
/** Half width at the back of an arrow, nm. */
const ARROW = 0.19;

const VERTEX = /* glsl */ `
  uniform highp sampler2D uKnots;
  uniform float uLongest;
  in uvec2 aVertex;
  out vec3 vAt;
  out vec3 vNormal;
  out vec3 vColor;
  vec4 knot(uint residue, int part) {
    return texelFetch(uKnots, ivec2(int(residue % ${ROW}u) * ${PER_KNOT / 4} + part, int(residue / ${ROW}u)), 0);
  }
  vec3 unit(vec3 along, vec3 otherwise) {
    float size = length(along);
    return size > 1e-9 ? along / size : otherwise;
  }
  void main() {
    uint here = aVertex.x;
    uint what = aVertex.y;
    uint next = here + 1u;
    vec3 a = knot((what & ${HAS_BEFORE}u) != 0u ? here - 1u : here, 0).xyz;
    vec4 b = knot(here, 0);
    vec4 c = knot(next, 0);
    vec3 d = knot((what & ${HAS_AFTER}u) != 0u ? next + 1u : next, 0).xyz;
    vec4 across = knot(here, 1);
    vec4 acrossNext = knot(next, 1);
    if (!(distance(b.xyz, c.xyz) < uLongest)) {
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      return;
    }
    // A Catmull-Rom curve through the knots.
    float t = float(what & 15u) / ${STEPS}.0;
    vec3 rest = 2.0 * a - 5.0 * b.xyz + 4.0 * c.xyz - d;
    vec3 bend = 3.0 * (b.xyz - c.xyz) + d - a;
    vec3 at = b.xyz + 0.5 * t * (c.xyz - a + t * (rest + t * bend));
    vec3 along = unit(0.5 * (c.xyz - a) + t * (rest + 1.5 * t * bend), vec3(0.0, 0.0, 1.0));
    vec3 sideways = mix(across.xyz, acrossNext.xyz, t);
    sideways -= along * dot(sideways, along);
    sideways = unit(sideways, unit(cross(along, vec3(along.z, along.x, along.y)), vec3(1.0, 0.0, 0.0)));
    vec3 upward = cross(along, sideways);
    float eased = t * t * (3.0 - 2.0 * t);
    float width = mix(b.w, c.w, eased);
    float height = mix(abs(across.w), abs(acrossNext.w), eased);
    if (across.w < 0.0) width = max(${ARROW} * (b.w / ${STRAND_AXES[0]}) * (1.0 - t), ${COIL_AXES[0]});
    float angle = float((what >> 4u) & 15u) * ${(2 * Math.PI) / SIDES};
    vec2 round = vec2(cos(angle), sin(angle));
    vec3 normal = unit(sideways * round.x * height + upward * round.y * width, upward);
    if ((what & ${FIRST_POINT}u) != 0u) normal = -along;
    else if ((what & ${LAST_POINT}u) != 0u) normal = along;
    else at += sideways * round.x * width + upward * round.y * height;
    vColor = knot(t < 0.5 ? here : next, 2).rgb;
    vAt = (modelViewMatrix * vec4(at, 1.0)).xyz;
    vNormal = mat3(modelViewMatrix) * normal;
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
  private readonly uKnots: IUniform<DataTexture | null> = { value: null };
  private shapes: RibbonShape[] = [];
  private knots: Float32Array<ArrayBuffer> = new Float32Array(0);

  constructor(uniforms: SharedUniforms) {
    const material = new ShaderMaterial({
      glslVersion: GLSL3,
      uniforms: { ...uniforms.all(), uKnots: this.uKnots },
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
    });
    this.object = new Mesh(new BufferGeometry(), material);
    this.object.frustumCulled = false;
    this.object.visible = false;
  }

  /** Draws ribbons along these traces and no others. */
  set(traces: readonly Trace[]): void {
    this.drop();
    this.shapes = traces.map((trace) => new RibbonShape(trace));
    const rings = this.shapes.reduce((sum, shape) => sum + shape.rings, 0);
    this.object.visible = rings > 0;
    if (rings === 0) return;
    const vertices = new Uint32Array(rings * SIDES * 2);
    const index = new Uint32Array((rings - this.shapes.length) * SIDES * 6);
    let [written, indexed, residues] = [0, 0, 0];
    for (const shape of this.shapes) {
      indexed = writeTriangles(index, indexed, written / 2, shape.rings);
      written = writeVertices(vertices, written, residues, shape.structure.length);
      residues += shape.structure.length;
    }
    const geometry = new BufferGeometry();
    geometry.setAttribute("aVertex", new BufferAttribute(vertices, 2));
    geometry.setIndex(new BufferAttribute(index, 1));
    geometry.boundingSphere = new Sphere();
    this.object.geometry = geometry;
    const rows = Math.ceil(residues / ROW);
    this.knots = new Float32Array(rows * ROW * PER_KNOT);
    const texture = new DataTexture(this.knots, (ROW * PER_KNOT) / 4, rows, RGBAFormat, FloatType);
    texture.minFilter = NearestFilter;
    texture.magFilter = NearestFilter;
    this.uKnots.value = texture;
  }

  /** A frame came: helices and strands may be elsewhere. */
  assign(positions: Float32Array, paint: RibbonPaint): void {
    let to = 0;
    for (const shape of this.shapes) {
      shape.assign(positions);
      for (let at = 0; at < shape.structure.length; at++, to += PER_KNOT) {
        const color = paint(shape.trace, at, shape.structure[at]!);
        this.knots[to + 8] = (color >> 16) / 255;
        this.knots[to + 9] = ((color >> 8) & 255) / 255;
        this.knots[to + 10] = (color & 255) / 255;
      }
    }
  }

  /** Moves the ribbons to where the particles are drawn. */
  follow(drawn: DrawnPositions): void {
    if (this.uKnots.value === null) return;
    let first = 0;
    for (const shape of this.shapes) {
      shape.write(drawn, this.knots, first);
      first += shape.structure.length;
    }
    this.uKnots.value.needsUpdate = true;
  }

  /** Nothing is on the graphics card any more. */
  forget(): void {
    this.object.geometry.dispose();
    this.uKnots.value?.dispose();
  }

  dispose(): void {
    this.drop();
    this.object.material.dispose();
    this.object.removeFromParent();
  }

  private drop(): void {
    this.forget();
    this.uKnots.value = null;
  }
}
