/** The edges of the periodic box, of any shape. */

import { BufferAttribute, BufferGeometry, Color, DoubleSide, GLSL3, type IUniform, Matrix3, Mesh, ShaderMaterial, Sphere } from "three";
import { fourfold, quads } from "./impostors.ts";
import { CORNER, LIGHT, type SharedUniforms, STRIP, STRIP_COVER } from "./shading.ts";

/** The corners at both ends of each of the twelve edges, as sums of box vectors: bit 0 is the first vector, and so on. */
export const EDGES: Uint32Array = Uint32Array.of(0, 1, 2, 3, 4, 5, 6, 7, 0, 2, 1, 3, 4, 6, 5, 7, 0, 4, 1, 5, 2, 6, 3, 7);

const VERTEX = /* glsl */ `
  ${CORNER}
  ${STRIP}
  uniform mat3 uBox;
  in uvec2 aEdge;
  out float vAcross;
  out vec3 vAt;
  vec3 boxCorner(uint which) {
    vec3 at = uBox * vec3(which & 1u, (which >> 1u) & 1u, which >> 2u);
    return (modelViewMatrix * vec4(at, 1.0)).xyz;
  }
  void main() {
    vec2 at = corner();
    vAcross = at.x;
    vAt = stripCorner(boxCorner(aEdge.x), boxCorner(aEdge.y), at);
    gl_Position = projectionMatrix * vec4(vAt, 1.0);
  }
`;

const FRAGMENT = /* glsl */ `
  ${LIGHT}
  ${STRIP_COVER}
  uniform vec3 uColor;
  in float vAcross;
  in vec3 vAt;
  out vec4 color;
  void main() {
    float cover = stripCover(vAcross);
    if (cover <= 0.0) discard;
    color = linearToOutputTexel(vec4(fade(uColor, length(vAt)), cover));
  }
`;

/** The eight corners (24 numbers, nm) of a box whose rows are its vectors (9 numbers, nm). */
export function boxCorners(box: Float32Array): Float32Array {
  const corners = new Float32Array(24);
  for (let corner = 0; corner < 8; corner++) {
    for (let axis = 0; axis < 3; axis++) {
      corners[corner * 3 + axis] =
        (corner & 1 ? box[axis]! : 0) + (corner & 2 ? box[3 + axis]! : 0) + (corner & 4 ? box[6 + axis]! : 0);
    }
  }
  return corners;
}

export class BoxLines {
  readonly object: Mesh<BufferGeometry, ShaderMaterial>;
  private readonly uBox: IUniform<Matrix3> = { value: new Matrix3() };
  private readonly uColor: IUniform<Color> = { value: new Color() };
  private shown = true;
  private there = false;

  constructor(uniforms: SharedUniforms) {
    const geometry = new BufferGeometry();
    geometry.setAttribute("aEdge", new BufferAttribute(fourfold(EDGES, 2, 12), 2));
    geometry.setIndex(quads(12));
    geometry.boundingSphere = new Sphere();
    const material = new ShaderMaterial({
      glslVersion: GLSL3,
      uniforms: { ...uniforms.all(), uBox: this.uBox, uColor: this.uColor },
      vertexShader: VERTEX,
      fragmentShader: FRAGMENT,
      transparent: true,
      depthWrite: false,
      side: DoubleSide,
      forceSinglePass: true,
    });
    this.object = new Mesh(geometry, material);
    this.object.frustumCulled = false;
    this.object.visible = false;
  }

  set(box: Float32Array | null): void {
    this.there = box !== null && box.length >= 9 && box.every(Number.isFinite) && box.some((part) => part !== 0);
    this.object.visible = this.shown && this.there;
    if (this.there && box) this.uBox.value.fromArray(box);
  }

  /** Whether it is to be seen. */
  get visible(): boolean {
    return this.object.visible;
  }

  show(on: boolean): void {
    this.shown = on;
    this.object.visible = on && this.there;
  }

  setColor(color: number): void {
    this.uColor.value.setHex(color);
  }

  dispose(): void {
    this.object.geometry.dispose();
    this.object.material.dispose();
    this.object.removeFromParent();
  }
}
