/**
 * Spheres, sticks, lines and outlines. Spheres and sticks are four corners each, around what is seen of them, and exact at each
 * pixel because the fragment shader casts the ray. All of a kind are one draw of plain vertices, four for each: graphics cards,
 * and processors that stand in for them, are slow at instances of so few.
 */

import {
  BufferAttribute,
  BufferGeometry,
  DoubleSide,
  DynamicDrawUsage,
  GLSL3,
  Mesh,
  ShaderMaterial,
  Sphere,
} from "three";
import { CORNER, LIGHT, PARTICLES, type SharedUniforms, STRIP, STRIP_COVER } from "./shading.ts";

/** A little more than the silhouette, for its edge to be smooth. */
const MARGIN = "1.08";

const SPHERE_VERTEX = /* glsl */ `
  ${PARTICLES}
  ${CORNER}
  uniform float uLine;
  in uint aParticle;
  in float aRadius;
  flat out vec3 vCentre;
  flat out float vRadius;
  flat out float vInner;
  flat out vec3 vColor;
  out vec3 vRay;
  out vec2 vCorner;
  void main() {
    vCentre = (modelViewMatrix * vec4(positionOf(aParticle), 1.0)).xyz;
    vRadius = (aRadius + RING) * length(modelViewMatrix[0].xyz);
    vInner = aRadius / (aRadius + RING);
    vColor = SPHERE_COLOR;
    float away = length(vCentre);
    // Smaller than a pixel it would fade away.
    vRadius = max(vRadius, away * uLine * 0.75);
    if (away <= vRadius * 1.001) {
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      return;
    }
    vec3 toward = vCentre / away;
    vec3 side = normalize(cross(toward, abs(toward.y) < 0.9 ? vec3(0.0, 1.0, 0.0) : vec3(1.0, 0.0, 0.0)));
    vec3 up = cross(side, toward);
    // The silhouette is where the cone that touches the sphere meets the plane through its centre.
    float reach = vRadius * away / sqrt((away - vRadius) * (away + vRadius));
    vCorner = corner() * ${MARGIN};
    vRay = vCentre + (side * vCorner.x + up * vCorner.y) * reach;
    gl_Position = projectionMatrix * vec4(vRay, 1.0);
  }
`;

const SPHERE_FRAGMENT = /* glsl */ `
  ${LIGHT}
  flat in vec3 vCentre;
  flat in float vRadius;
  flat in vec3 vColor;
  in vec3 vRay;
  in vec2 vCorner;
  out vec4 color;
  void main() {
    float edge = length(vCorner);
    float cover = clamp((1.0 - edge) / max(fwidth(edge), 1e-5) + 0.5, 0.0, 1.0);
    if (cover <= 0.0) discard;
    vec3 ray = normalize(vRay);
    float along = dot(ray, vCentre);
    vec3 miss = vCentre - ray * along;
    vec3 at = ray * (along - sqrt(max(vRadius * vRadius - dot(miss, miss), 0.0)));
    float depth = depthAt(at.z);
    if (depth < 0.0) discard;
    gl_FragDepth = depth;
    color = linearToOutputTexel(vec4(shade(vColor, (at - vCentre) / vRadius, at), cover));
  }
`;

const HALO_FRAGMENT = /* glsl */ `
  ${LIGHT}
  flat in vec3 vCentre;
  flat in float vRadius;
  flat in float vInner;
  flat in vec3 vColor;
  in vec3 vRay;
  in vec2 vCorner;
  out vec4 color;
  void main() {
    float edge = length(vCorner);
    float cover = clamp((1.0 - edge) / max(fwidth(edge), 1e-5) + 0.5, 0.0, 1.0);
    if (cover <= 0.0) discard;
    vec3 ray = normalize(vRay);
    float along = dot(ray, vCentre);
    vec3 miss = vCentre - ray * along;
    float inner = step(edge, vInner);
    // Tinted where it covers the particle; around it a ring that what is before its centre covers.
    float chord = sqrt(max(vRadius * vRadius - dot(miss, miss), 0.0));
    gl_FragDepth = depthAt((ray * (along - chord * inner)).z);
    color = linearToOutputTexel(vec4(vColor, cover * mix(0.95, 0.38, inner)));
  }
`;

const STICK_VERTEX = /* glsl */ `
  ${PARTICLES}
  ${CORNER}
  uniform float uLine;
  uniform float uLongest;
  in uvec2 aPair;
  in float aRadius;
  flat out vec3 vMiddle;
  flat out vec3 vAxis;
  flat out vec2 vSize;
  flat out vec3 vColorA;
  flat out vec3 vColorB;
  out vec3 vRay;
  void main() {
    vec3 one = positionOf(aPair.x);
    vec3 other = positionOf(aPair.y);
    float apart = distance(one, other);
    if (!(apart > 1e-5 && apart < uLongest)) {
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      return;
    }
    float scale = length(modelViewMatrix[0].xyz);
    vMiddle = (modelViewMatrix * vec4(0.5 * (one + other), 1.0)).xyz;
    vAxis = normalize(mat3(modelViewMatrix) * (other - one));
    vSize = vec2(0.5 * apart * scale, max(aRadius * scale, length(vMiddle) * uLine * 0.5));
    vColorA = colorOf(aPair.x);
    vColorB = colorOf(aPair.y);
    // The plane through the axis that faces the eye: the silhouette is where those that touch the stick meet it.
    vec3 toward = -(vMiddle - vAxis * dot(vMiddle, vAxis));
    float away = length(toward);
    if (away <= vSize.y * 1.01) {
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      return;
    }
    vec3 side = cross(vAxis, toward / away);
    float reach = vSize.y * away / sqrt((away - vSize.y) * (away + vSize.y));
    vec2 at = corner();
    // The front of the far end is seen beyond it in that plane, the more so the more the stick points away.
    float along = dot(vMiddle, vAxis) + at.y * vSize.x;
    float beyond = clamp(along * at.y / (away - vSize.y), 0.0, 8.0) * vSize.y;
    vRay = vMiddle + side * (at.x * reach * ${MARGIN}) + vAxis * (at.y * (vSize.x + beyond));
    gl_Position = projectionMatrix * vec4(vRay, 1.0);
  }
`;

const STICK_FRAGMENT = /* glsl */ `
  ${LIGHT}
  flat in vec3 vMiddle;
  flat in vec3 vAxis;
  flat in vec2 vSize;
  flat in vec3 vColorA;
  flat in vec3 vColorB;
  in vec3 vRay;
  out vec4 color;
  void main() {
    vec3 ray = normalize(vRay);
    // From the point of the ray that is next to the middle: small numbers, which lose nothing at a distance.
    float along = dot(ray, vMiddle);
    vec3 from = ray * along - vMiddle;
    vec3 fromSquare = from - vAxis * dot(from, vAxis);
    vec3 raySquare = ray - vAxis * dot(ray, vAxis);
    float a = max(dot(raySquare, raySquare), 1e-9);
    float b = dot(fromSquare, raySquare);
    vec3 miss = fromSquare - raySquare * (b / a);
    float edge = length(miss) / vSize.y;
    float cover = clamp((1.0 - edge) / max(fwidth(edge), 1e-5) + 0.5, 0.0, 1.0);
    if (cover <= 0.0) discard;
    float inside = max(vSize.y * vSize.y - dot(miss, miss), 0.0);
    float t = -b / a - sqrt(inside / a);
    vec3 at = from + ray * t;
    float height = dot(at, vAxis);
    if (abs(height) > vSize.x) discard;
    vec3 normal = (at - vAxis * height) / vSize.y;
    at += vMiddle;
    float depth = depthAt(at.z);
    if (depth < 0.0) discard;
    gl_FragDepth = depth;
    vec3 base = height < 0.0 ? vColorA : vColorB;
    color = linearToOutputTexel(vec4(shade(base, normalize(normal), at), cover));
  }
`;

const LINE_VERTEX = /* glsl */ `
  ${PARTICLES}
  ${CORNER}
  ${STRIP}
  uniform float uLongest;
  in uvec2 aPair;
  flat out vec3 vColorA;
  flat out vec3 vColorB;
  out vec2 vCorner;
  out vec3 vAt;
  void main() {
    vec3 one = positionOf(aPair.x);
    vec3 other = positionOf(aPair.y);
    float apart = distance(one, other);
    if (!(apart > 1e-5 && apart < uLongest)) {
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      return;
    }
    vColorA = colorOf(aPair.x);
    vColorB = colorOf(aPair.y);
    vCorner = corner();
    vAt = stripCorner((modelViewMatrix * vec4(one, 1.0)).xyz, (modelViewMatrix * vec4(other, 1.0)).xyz, vCorner);
    gl_Position = projectionMatrix * vec4(vAt, 1.0);
  }
`;

const LINE_FRAGMENT = /* glsl */ `
  ${LIGHT}
  ${STRIP_COVER}
  flat in vec3 vColorA;
  flat in vec3 vColorB;
  in vec2 vCorner;
  in vec3 vAt;
  out vec4 color;
  void main() {
    float cover = stripCover(vCorner.x);
    if (cover <= 0.0) discard;
    color = linearToOutputTexel(vec4(fade((vCorner.y < 0.0 ? vColorA : vColorB) * 0.9, length(vAt)), cover));
  }
`;

type List = Uint32Array | Float32Array;

/** The first `count` items of a list, of `size` numbers each, once for each of the four vertices of each. */
export function fourfold<Kind extends List>(list: Kind, size: number, count: number): Kind {
  const copies = (list instanceof Uint32Array ? new Uint32Array(count * size * 4) : new Float32Array(count * size * 4)) as Kind;
  for (let item = 0, to = 0; item < count; item++) {
    for (let copy = 0; copy < 4; copy++) for (let part = 0; part < size; part++) copies[to++] = list[item * size + part]!;
  }
  return copies;
}

/** Two triangles between each four vertices. */
export function quads(count: number): BufferAttribute {
  const index = new Uint32Array(count * 6);
  for (let quad = 0, at = 0; quad < count; quad++) {
    const first = quad * 4;
    index[at++] = first;
    index[at++] = first + 1;
    index[at++] = first + 2;
    index[at++] = first;
    index[at++] = first + 2;
    index[at++] = first + 3;
  }
  return new BufferAttribute(index, 1);
}

/** Things of one kind, four vertices each; nothing is drawn while there are none. */
class Batch {
  constructor(readonly object: Mesh<BufferGeometry, ShaderMaterial>) {
    object.frustumCulled = false;
    object.visible = false;
  }

  protected replace(count: number, attributes: Readonly<Record<string, BufferAttribute>>): void {
    this.object.geometry.dispose();
    const geometry = new BufferGeometry();
    for (const [name, attribute] of Object.entries(attributes)) geometry.setAttribute(name, attribute);
    geometry.setIndex(quads(count));
    // Where the vertices are is known to the shader alone, so it cannot be worked out from them.
    geometry.boundingSphere = new Sphere();
    this.object.geometry = geometry;
    this.object.visible = count > 0;
  }

  dispose(): void {
    this.object.geometry.dispose();
    this.object.material.dispose();
    this.object.removeFromParent();
  }
}

export class Spheres extends Batch {
  constructor(uniforms: SharedUniforms) {
    const material = new ShaderMaterial({
      glslVersion: GLSL3,
      uniforms: uniforms.all(),
      defines: { RING: "0.0", SPHERE_COLOR: "colorOf(aParticle)" },
      vertexShader: SPHERE_VERTEX,
      fragmentShader: SPHERE_FRAGMENT,
      alphaToCoverage: true,
      side: DoubleSide,
    });
    super(new Mesh(new BufferGeometry(), material));
  }

  /** Draws the first `count` particles of the list, with radii in nm. */
  set(particles: Uint32Array, radii: Float32Array, count: number): void {
    this.replace(count, {
      aParticle: new BufferAttribute(fourfold(particles, 1, count), 1),
      aRadius: new BufferAttribute(fourfold(radii, 1, count), 1),
    });
  }
}

/** Rings around particles, and a tint over them. */
export class Halos extends Batch {
  private room = 0;
  private particles = new BufferAttribute(new Uint32Array(0), 1);
  private radii = new BufferAttribute(new Float32Array(0), 1);

  constructor(uniforms: SharedUniforms) {
    const material = new ShaderMaterial({
      glslVersion: GLSL3,
      uniforms: uniforms.all(),
      defines: { RING: "0.012", SPHERE_COLOR: "uHighlight" },
      vertexShader: `uniform vec3 uHighlight;\n${SPHERE_VERTEX}`,
      fragmentShader: HALO_FRAGMENT,
      transparent: true,
      depthWrite: false,
      side: DoubleSide,
      forceSinglePass: true,
    });
    super(new Mesh(new BufferGeometry(), material));
    this.object.renderOrder = 2;
  }

  /** Rings the particles; `reach` holds the radius (nm) of each. Ids that are not of particles are passed over. */
  show(particles: readonly number[], reach: Float32Array): void {
    if (particles.length > this.room) {
      this.room = Math.max(64, particles.length * 2);
      this.particles = new BufferAttribute(new Uint32Array(this.room * 4), 1).setUsage(DynamicDrawUsage);
      this.radii = new BufferAttribute(new Float32Array(this.room * 4), 1).setUsage(DynamicDrawUsage);
      this.replace(this.room, { aParticle: this.particles, aRadius: this.radii });
    }
    let count = 0;
    for (const particle of particles) {
      const radius = reach[particle];
      if (radius === undefined || radius <= 0) continue;
      this.particles.array.fill(particle, count * 4, count * 4 + 4);
      this.radii.array.fill(Math.max(radius, 0.025), count * 4, count * 4 + 4);
      count++;
    }
    this.particles.needsUpdate = true;
    this.radii.needsUpdate = true;
    this.object.geometry.setDrawRange(0, count * 6);
    this.object.visible = count > 0;
  }
}

export class Sticks extends Batch {
  constructor(uniforms: SharedUniforms) {
    const material = new ShaderMaterial({
      glslVersion: GLSL3,
      uniforms: uniforms.all(),
      vertexShader: STICK_VERTEX,
      fragmentShader: STICK_FRAGMENT,
      alphaToCoverage: true,
      side: DoubleSide,
    });
    super(new Mesh(new BufferGeometry(), material));
  }

  /** Draws the first `count` pairs of particles, with radii in nm. */
  set(pairs: Uint32Array, radii: Float32Array, count: number): void {
    this.replace(count, {
      aPair: new BufferAttribute(fourfold(pairs, 2, count), 2),
      aRadius: new BufferAttribute(fourfold(radii, 1, count), 1),
    });
  }
}

export class Lines extends Batch {
  constructor(uniforms: SharedUniforms) {
    const material = new ShaderMaterial({
      glslVersion: GLSL3,
      uniforms: uniforms.all(),
      vertexShader: LINE_VERTEX,
      fragmentShader: LINE_FRAGMENT,
      alphaToCoverage: true,
      side: DoubleSide,
    });
    super(new Mesh(new BufferGeometry(), material));
  }

  /** Draws the first `count` pairs of particles. */
  set(pairs: Uint32Array, count: number): void {
    this.replace(count, { aPair: new BufferAttribute(fourfold(pairs, 2, count), 2) });
  }
}
