/** Spheres, sticks, lines and outlines: instanced, and exact at each pixel because the fragment shader casts the ray. */

import {
  BackSide,
  BoxGeometry,
  BufferAttribute,
  type BufferGeometry,
  DynamicDrawUsage,
  GLSL3,
  InstancedBufferAttribute,
  InstancedBufferGeometry,
  LineSegments,
  Mesh,
  ShaderMaterial,
} from "three";
import { LIGHT, PARTICLES, type SharedUniforms } from "./shading.ts";

const CORNERS = new Float32Array([-1, -1, 0, 1, -1, 0, 1, 1, 0, -1, 1, 0]);

/** A little more than the silhouette, for its edge to be smooth. */
const MARGIN = "1.08";

const SPHERE_VERTEX = /* glsl */ `
  ${PARTICLES}
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
    if (away <= vRadius * 1.001) {
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      return;
    }
    vec3 toward = vCentre / away;
    vec3 side = normalize(cross(toward, abs(toward.y) < 0.9 ? vec3(0.0, 1.0, 0.0) : vec3(1.0, 0.0, 0.0)));
    vec3 up = cross(side, toward);
    // The silhouette is where the cone that touches the sphere meets the plane through its centre.
    float reach = vRadius * away / sqrt((away - vRadius) * (away + vRadius));
    vCorner = position.xy * ${MARGIN};
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
    float half_chord = sqrt(max(vRadius * vRadius - dot(miss, miss), 0.0));
    gl_FragDepth = depthAt((ray * (along - half_chord * inner)).z);
    color = linearToOutputTexel(vec4(vColor, cover * mix(0.95, 0.38, inner)));
  }
`;

const STICK_VERTEX = /* glsl */ `
  ${PARTICLES}
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
    vSize = vec2(0.5 * apart, aRadius) * scale;
    vColorA = colorOf(aPair.x);
    vColorB = colorOf(aPair.y);
    vec3 side = normalize(cross(vAxis, abs(vAxis.z) < 0.9 ? vec3(0.0, 0.0, 1.0) : vec3(1.0, 0.0, 0.0)));
    vec3 up = cross(vAxis, side);
    vec3 corner = vec3(position.xy * vSize.y * ${MARGIN}, position.z * vSize.x);
    vRay = vMiddle + side * corner.x + up * corner.y + vAxis * corner.z;
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
  uniform float uLongest;
  in uvec2 aPair;
  out vec3 vColor;
  out vec3 vAt;
  void main() {
    vec3 one = positionOf(aPair.x);
    vec3 other = positionOf(aPair.y);
    if (!(distance(one, other) < uLongest)) {
      gl_Position = vec4(2.0, 2.0, 2.0, 1.0);
      return;
    }
    vColor = colorOf(position.y < 0.5 ? aPair.x : aPair.y);
    vAt = (modelViewMatrix * vec4(mix(one, other, position.x), 1.0)).xyz;
    gl_Position = projectionMatrix * vec4(vAt, 1.0);
  }
`;

const LINE_FRAGMENT = /* glsl */ `
  ${LIGHT}
  in vec3 vColor;
  in vec3 vAt;
  out vec4 color;
  void main() {
    color = linearToOutputTexel(vec4(fade(vColor * 0.9, length(vAt)), 1.0));
  }
`;

/** A batch of instances whose attributes can be replaced; nothing is drawn, and nothing kept, while there are none. */
class Batch {
  private geometry: InstancedBufferGeometry;

  constructor(
    readonly object: Mesh | LineSegments,
    private readonly base: BufferGeometry,
  ) {
    this.geometry = this.empty();
    object.geometry = this.geometry;
    object.frustumCulled = false;
    object.visible = false;
  }

  protected replace(count: number, attributes: Readonly<Record<string, InstancedBufferAttribute>>): void {
    this.geometry.dispose();
    this.geometry = this.empty();
    for (const [name, attribute] of Object.entries(attributes)) this.geometry.setAttribute(name, attribute);
    this.geometry.instanceCount = count;
    this.object.geometry = this.geometry;
    this.object.visible = count > 0;
  }

  dispose(): void {
    this.geometry.dispose();
    (this.object.material as ShaderMaterial).dispose();
    this.object.removeFromParent();
  }

  private empty(): InstancedBufferGeometry {
    const geometry = new InstancedBufferGeometry();
    geometry.setIndex(this.base.getIndex());
    geometry.setAttribute("position", this.base.getAttribute("position"));
    geometry.instanceCount = 0;
    return geometry;
  }
}

function quad(): InstancedBufferGeometry {
  const geometry = new InstancedBufferGeometry();
  geometry.setAttribute("position", new BufferAttribute(CORNERS, 3));
  geometry.setIndex([0, 1, 2, 0, 2, 3]);
  return geometry;
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
    });
    super(new Mesh(undefined, material), quad());
  }

  /** Draws the first `count` particles of the list, with radii in nm. */
  set(particles: Uint32Array, radii: Float32Array, count: number): void {
    this.replace(count, {
      aParticle: new InstancedBufferAttribute(particles.slice(0, count), 1),
      aRadius: new InstancedBufferAttribute(radii.slice(0, count), 1),
    });
  }
}

/** Rings around particles, and a tint over them. */
export class Halos extends Batch {
  private room = 0;
  private particles = new InstancedBufferAttribute(new Uint32Array(0), 1);
  private radii = new InstancedBufferAttribute(new Float32Array(0), 1);

  constructor(uniforms: SharedUniforms) {
    const material = new ShaderMaterial({
      glslVersion: GLSL3,
      uniforms: uniforms.all(),
      defines: { RING: "0.012", SPHERE_COLOR: "uHighlight" },
      vertexShader: `uniform vec3 uHighlight;\n${SPHERE_VERTEX}`,
      fragmentShader: HALO_FRAGMENT,
      transparent: true,
      depthWrite: false,
    });
    super(new Mesh(undefined, material), quad());
    this.object.renderOrder = 2;
  }

  /** Rings the particles; `reach` holds the radius (nm) of each. Ids that are not of particles are passed over. */
  show(particles: readonly number[], reach: Float32Array): void {
    if (particles.length > this.room) {
      this.room = Math.max(64, particles.length * 2);
      this.particles = new InstancedBufferAttribute(new Uint32Array(this.room), 1).setUsage(DynamicDrawUsage);
      this.radii = new InstancedBufferAttribute(new Float32Array(this.room), 1).setUsage(DynamicDrawUsage);
      this.replace(0, { aParticle: this.particles, aRadius: this.radii });
    }
    let count = 0;
    for (const particle of particles) {
      const radius = reach[particle];
      if (radius === undefined || radius <= 0) continue;
      this.particles.array[count] = particle;
      this.radii.array[count] = Math.max(radius, 0.025);
      count++;
    }
    this.particles.needsUpdate = true;
    this.radii.needsUpdate = true;
    (this.object.geometry as InstancedBufferGeometry).instanceCount = count;
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
      // The far sides of the box around a stick: each pixel once, and also from within the box.
      side: BackSide,
    });
    super(new Mesh(undefined, material), new BoxGeometry(2, 2, 2));
  }

  /** Draws the first `count` pairs of particles, with radii in nm. */
  set(pairs: Uint32Array, radii: Float32Array, count: number): void {
    this.replace(count, {
      aPair: new InstancedBufferAttribute(pairs.slice(0, count * 2), 2),
      aRadius: new InstancedBufferAttribute(radii.slice(0, count), 1),
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
    });
    const halves = new InstancedBufferGeometry();
    // x: how far along the bond; y: whose colour.
    halves.setAttribute("position", new BufferAttribute(new Float32Array([0, 0, 0, 0.5, 0, 0, 0.5, 1, 0, 1, 1, 0]), 3));
    super(new LineSegments(undefined, material), halves);
  }

  /** Draws the first `count` pairs of particles. */
  set(pairs: Uint32Array, count: number): void {
    this.replace(count, { aPair: new InstancedBufferAttribute(pairs.slice(0, count * 2), 2) });
  }
}
