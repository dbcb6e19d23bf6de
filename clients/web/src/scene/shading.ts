/** GLSL that all materials share: where particles are, and how surfaces are lit. */

import { Color, type IUniform, Vector2 } from "three";

/** Texels of a row of the textures that hold a texel for each particle, as a power of two. */
export const ROW_BITS = 11;

/** Uniforms that all materials share: each is one object, so setting its value sets it everywhere. */
export class SharedUniforms {
  readonly uBefore: IUniform = { value: null };
  readonly uAfter: IUniform = { value: null };
  readonly uColors: IUniform = { value: null };
  readonly uFraction: IUniform<number> = { value: 1 };
  /** Bonds that are longer (nm) go across a periodic boundary and are not drawn. */
  readonly uLongest: IUniform<number> = { value: 1e9 };
  readonly uFogColor: IUniform<Color> = { value: new Color() };
  /** Distances (world) at which things begin and have ceased to fade; what they keep of themselves is in uFogDepth. */
  readonly uFogRange: IUniform<Vector2> = { value: new Vector2(0, 1) };
  readonly uFogDepth: IUniform<number> = { value: 0 };
  /** Half the width of lines, as a part of their distance. */
  readonly uLine: IUniform<number> = { value: 0.001 };
  readonly uOutline: IUniform<number> = { value: 0.5 };
  readonly uHighlight: IUniform<Color> = { value: new Color() };

  all(): Record<string, IUniform> {
    return { ...(this as unknown as Record<string, IUniform>) };
  }
}

/** For vertex shaders. */
export const PARTICLES = /* glsl */ `
  uniform highp sampler2D uBefore;
  uniform highp sampler2D uAfter;
  uniform lowp sampler2D uColors;
  uniform float uFraction;
  ivec2 texelOf(uint particle) {
    return ivec2(int(particle & ${(1 << ROW_BITS) - 1}u), int(particle >> ${ROW_BITS}u));
  }
  vec3 positionOf(uint particle) {
    ivec2 at = texelOf(particle);
    return mix(texelFetch(uBefore, at, 0).xyz, texelFetch(uAfter, at, 0).xyz, uFraction);
  }
  vec3 colorOf(uint particle) {
    return texelFetch(uColors, texelOf(particle), 0).rgb;
  }
`;

/** For vertex shaders of what has four vertices: which corner (-1 or 1 each way) this one is. */
export const CORNER = /* glsl */ `
  vec2 corner() {
    int at = gl_VertexID & 3;
    return vec2(at == 1 || at == 2 ? 1.0 : -1.0, at >= 2 ? 1.0 : -1.0);
  }
`;

/**
 * For vertex shaders: a corner of the strip along a line (view space), as wide everywhere on screen. Strips end a little beyond
 * their ends, so that those that meet leave no gap.
 */
export const STRIP = /* glsl */ `
  uniform float uLine;
  vec3 stripCorner(vec3 one, vec3 other, vec2 at) {
    vec3 along = other - one;
    vec3 end = at.y < 0.0 ? one : other;
    vec3 side = cross(along, one);
    float size = length(side);
    float reach = uLine * max(-end.z, 0.0);
    return end + (size > 1e-12 ? side / size : vec3(1.0, 0.0, 0.0)) * (at.x * reach * 1.5) + normalize(along) * (at.y * reach * 0.5);
  }
`;

/** For fragment shaders of strips: how much of the pixel is covered, from how far (-1 to 1) it is across the strip. */
export const STRIP_COVER = /* glsl */ `
  float stripCover(float across) {
    float edge = abs(across) * 1.5;
    return clamp((1.0 - edge) / max(fwidth(edge), 1e-5) + 0.5, 0.0, 1.0);
  }
`;

/**
 * For fragment shaders. Light comes from over the viewer's shoulder; edges darken as if drawn, and the distance fades.
 * All in view space, where the eye is the origin for each view of a headset, too.
 */
export const LIGHT = /* glsl */ `
  uniform mat4 projectionMatrix;
  uniform vec3 uFogColor;
  uniform vec2 uFogRange;
  uniform float uFogDepth;
  uniform float uOutline;
  float depthAt(float z) {
    return 0.5 + 0.5 * (projectionMatrix[2][2] * z + projectionMatrix[3][2]) / -z;
  }
  vec3 fade(vec3 color, float distance) {
    return mix(color, uFogColor, uFogDepth * smoothstep(uFogRange.x, uFogRange.y, distance));
  }
  vec3 shade(vec3 base, vec3 normal, vec3 at) {
    vec3 eye = normalize(-at);
    const vec3 KEY = vec3(0.354, 0.606, 0.712);
    float key = dot(normal, KEY);
    float facing = clamp(dot(normal, eye), 0.0, 1.0);
    vec3 ambient = mix(vec3(0.24, 0.235, 0.27), vec3(0.44, 0.46, 0.50), normal.y * 0.5 + 0.5);
    vec3 color = base * (ambient + 0.70 * smoothstep(-0.3, 1.0, key));
    float gloss = clamp(dot(normal, normalize(KEY + eye)), 0.0, 1.0);
    color += vec3(0.16) * pow(gloss, 48.0);
    color *= 1.0 - uOutline * smoothstep(0.55, 0.95, 1.0 - facing);
    return fade(color, length(at));
  }
`;
