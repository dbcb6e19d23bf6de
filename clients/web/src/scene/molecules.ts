/** Particles, bonds and ribbons of the newest frame, in the representation that was asked for. */

import type { Object3D } from "three";
import type { ColorScheme, Frame, Representation } from "../contracts.ts";
import { findTraces, type Trace } from "./backbone.ts";
import { colorParticles, ribbonColor } from "./colors.ts";
import { type Drawing, layOut } from "./drawing.ts";
import { Halos, Lines, Spheres, Sticks } from "./impostors.ts";
import { shortestVector } from "./interpolation.ts";
import { ParticleTextures } from "./particle-textures.ts";
import { type RibbonPaint, Ribbons } from "./ribbons.ts";
import { type RenderingHint, renderingHints } from "./selections.ts";
import { SharedUniforms } from "./shading.ts";

const UNDRAWN = new Float32Array(0);

export class Molecules {
  readonly uniforms = new SharedUniforms();
  readonly particles = new ParticleTextures(this.uniforms);
  private readonly spheres = new Spheres(this.uniforms);
  private readonly sticks = new Sticks(this.uniforms);
  private readonly lines = new Lines(this.uniforms);
  private readonly ribbons = new Ribbons(this.uniforms);
  private readonly halos = new Halos(this.uniforms);
  private representation: Representation = "ball and stick";
  private scheme: ColorScheme = "element";
  private hints: readonly RenderingHint[] = [];
  private highlight: readonly number[] = [];
  private frame: Frame | null = null;
  private traces: readonly Trace[] = [];
  private drawing: Drawing | null = null;
  private stale = true;
  private readonly paint: RibbonPaint = (trace, at, structure) =>
    ribbonColor(this.scheme, trace.alphas[at]!, structure, this.particles.colors);

  get objects(): Object3D[] {
    return [this.ribbons, this.sticks, this.spheres, this.lines, this.halos].map(({ object }) => object);
  }

  /** Of each particle, how near (nm) a ray must pass to meet it; 0 where it is not drawn. */
  get reach(): Float32Array {
    return this.drawing?.reach ?? UNDRAWN;
  }

  setRepresentation(representation: Representation, scheme: ColorScheme): void {
    this.stale ||= representation !== this.representation || scheme !== this.scheme;
    this.representation = representation;
    this.scheme = scheme;
  }

  setSelections(state: ReadonlyMap<string, unknown>): void {
    this.hints = renderingHints(state);
    this.stale = true;
  }

  setHighlight(particles: readonly number[]): void {
    this.highlight = particles;
    this.halos.show(particles, this.reach);
  }

  /** Another frame: its particles are there `atOnce`, or set off from where they are drawn. */
  take(frame: Frame, atOnce: boolean): void {
    const another = frame.topologySerial !== this.frame?.topologySerial;
    this.frame = frame;
    const count = Math.min(frame.particleCount, Math.floor(frame.positions.length / 3));
    const grown = count !== this.particles.count;
    const voided = this.particles.resize(count);
    if (atOnce || grown || voided || another) this.particles.place(frame.positions);
    else this.particles.move(frame.positions, frame.box);
    this.uniforms.uLongest.value = shortestVector(frame.box) / 2 || 1e9;
    if (another || grown) {
      this.traces = findTraces({ ...frame, particleCount: count });
      this.stale = true;
    }
    if (this.stale) this.redraw(frame, count);
    else this.ribbons.assign(frame.positions, this.paint);
  }

  /** Puts everything where it is at that part of the way to the newest frame. */
  setFraction(fraction: number): void {
    if (this.stale && this.frame) this.redraw(this.frame, this.particles.count);
    this.particles.setFraction(fraction);
    this.ribbons.follow(this.particles);
  }

  /** Nothing is on the graphics card any more. */
  forget(): void {
    this.particles.forget();
    this.ribbons.forget();
  }

  /** Uploads everything again: the context is another. */
  refresh(): void {
    this.particles.refresh();
    this.stale = true;
  }

  dispose(): void {
    for (const part of [this.spheres, this.sticks, this.lines, this.ribbons, this.halos, this.particles]) part.dispose();
  }

  private redraw(frame: Frame, count: number): void {
    this.stale = false;
    const source = { ...frame, particleCount: count };
    colorParticles(source, this.scheme, this.hints, this.particles.colors);
    this.particles.colorsWritten();
    const drawing = layOut(source, this.traces, this.representation, this.hints);
    this.drawing = drawing;
    this.spheres.set(drawing.spheres, drawing.sphereRadii, drawing.sphereCount);
    this.sticks.set(drawing.sticks, drawing.stickRadii, drawing.stickCount);
    this.lines.set(drawing.lines, drawing.lineCount);
    this.ribbons.set(drawing.traces);
    this.ribbons.assign(frame.positions, this.paint);
    this.setHighlight(this.highlight);
  }
}
