/** The scene: what a session's frames look like. Owns the animation frame tick. */

import { Group, Line, Mesh, PerspectiveCamera, Raycaster, Scene, Sprite, Vector2, Vector3, WebGLRenderer } from "three";
import type { CameraPlace, ColorScheme, Frame, Hit, Ray, Representation, SceneView, Session } from "../contracts.ts";
import { boxCorners, BoxLines } from "./box-lines.ts";
import { CameraControls } from "./camera-controls.ts";
import { FrameRate } from "./frame-rate.ts";
import { ArrivalClock } from "./interpolation.ts";
import { Molecules } from "./molecules.ts";
import { Notice } from "./notice.ts";
import { boundingBall, broadside, eyeOf, FIELD_OF_VIEW, type Orbit, orbitFrom, SIMULATION_YAW } from "./orbit.ts";
import { pickParticle } from "./picking.ts";
import { selectionsChanged } from "./selections.ts";
import { THEMES } from "./themes.ts";

/** World metres in a nm of the simulation, to begin with. */
const METRES_PER_NM = 0.1;
const SHARPEST = 2;
/** What is to be seen around the particles, nm. */
const MARGIN_NM = 0.2;
/** How wide lines are, px; and in a headset, half of that as a part of their distance. */
const LINE_PX = 1.7;
const LINE_IN_HEADSET = 0.0009;
const LOST = "The graphics card has stopped drawing. The picture comes back by itself when it is ready; if not, reload the page.";

export class SessionScene implements SceneView {
  readonly canvas: HTMLCanvasElement;
  readonly renderer: WebGLRenderer;
  readonly camera = new PerspectiveCamera((FIELD_OF_VIEW * 180) / Math.PI, 1, 0.01, 100);
  readonly simulationRoot = new Group();
  readonly worldRoot = new Group();
  private readonly scene = new Scene();
  private readonly molecules = new Molecules();
  private readonly box = new BoxLines(this.molecules.uniforms);
  private readonly controls: CameraControls;
  private readonly notice: Notice;
  private readonly clock = new ArrivalClock();
  private readonly rate = new FrameRate();
  private readonly listeners = new Set<(timeMs: number) => void>();
  private readonly selections = new Map<string, unknown>();
  private readonly resizing: ResizeObserver;
  private readonly stop = new AbortController();
  private readonly unsubscribe: () => void;
  private readonly caster = new Raycaster();
  private readonly pointer = new Vector2();
  private readonly point = new Vector3();
  private readonly forward = new Vector3();
  private frame: Frame | null = null;
  private fittedTopology = -1;
  private look: Orbit | null = null;
  private radius = 1;
  private scale = 1;
  private theme: "light" | "dark" = "light";
  private fog: number = THEMES.light.fog;
  private smoothing = true;
  private ratio = 1;
  /** A canvas of another size is empty until it is drawn on, so it is given its size right before that. */
  private sized = false;
  private lost = false;
  private disposed = false;

  constructor(private readonly container: HTMLElement, private readonly session: Session) {
    this.renderer = new WebGLRenderer({ antialias: true, powerPreference: "high-performance" });
    this.canvas = this.renderer.domElement;
    this.canvas.tabIndex = 0;
    this.canvas.setAttribute("role", "application");
    this.canvas.setAttribute("aria-label", "Simulation. Shift with arrow keys turns it, W, A, S and D move it, plus and minus zoom.");
    Object.assign(this.canvas.style, { display: "block", width: "100%", height: "100%", touchAction: "none" });
    container.prepend(this.canvas);
    this.notice = new Notice(container);
    this.renderer.xr.enabled = true;
    this.renderer.info.autoReset = true;
    this.simulationRoot.name = "simulation";
    this.simulationRoot.rotation.y = SIMULATION_YAW;
    this.simulationRoot.scale.setScalar(METRES_PER_NM);
    this.worldRoot.name = "world";
    this.simulationRoot.add(...this.molecules.objects, this.box.object);
    this.scene.add(this.simulationRoot, this.worldRoot, this.camera);
    this.controls = new CameraControls(this.canvas, () => this.resetCamera());
    this.setTheme("light");
    const on = { signal: this.stop.signal };
    this.canvas.addEventListener("webglcontextlost", (event) => this.contextLost(event), on);
    this.canvas.addEventListener("webglcontextrestored", () => this.contextRestored(), on);
    this.resizing = new ResizeObserver(() => (this.sized = false));
    this.resizing.observe(container);
    this.resize();
    this.readSelections();
    this.unsubscribe = session.on("state", () => this.readSelections());
    this.renderer.setAnimationLoop((timeMs: number) => this.tick(timeMs));
  }

  setRepresentation(kind: Representation, colors: ColorScheme): void {
    this.molecules.setRepresentation(kind, colors);
    this.rate.restart();
  }

  setSmoothing(on: boolean): void {
    this.smoothing = on;
  }

  setShowBox(on: boolean): void {
    this.box.show(on);
  }

  setTheme(theme: "light" | "dark"): void {
    const colors = THEMES[theme];
    this.theme = theme;
    this.renderer.setClearColor(colors.background, 1);
    const { uniforms } = this.molecules;
    uniforms.uFogColor.value.setHex(colors.background);
    uniforms.uHighlight.value.setHex(colors.highlight);
    uniforms.uOutline.value = colors.outline;
    this.fog = colors.fog;
    this.box.setColor(colors.box);
  }

  pick(ray: Ray, slackNm: number): Hit | null {
    return pickParticle(ray, this.molecules.particles, this.molecules.reach, slackNm);
  }

  rayAt(clientX: number, clientY: number): Ray {
    this.aim(clientX, clientY);
    const inverse = this.simulationRoot.matrixWorld.clone().invert();
    const { origin, direction } = this.caster.ray;
    origin.applyMatrix4(inverse);
    direction.transformDirection(inverse);
    return { origin: [origin.x, origin.y, origin.z], direction: [direction.x, direction.y, direction.z] };
  }

  dragPoint(clientX: number, clientY: number, at: readonly [number, number, number]): [number, number, number] {
    this.aim(clientX, clientY);
    const depth = this.depthOf(at);
    const { origin, direction } = this.caster.ray;
    const along = depth / Math.max(direction.dot(this.forward), 1e-6);
    this.point.copy(origin).addScaledVector(direction, along);
    this.simulationRoot.worldToLocal(this.point);
    return [this.point.x, this.point.y, this.point.z];
  }

  nmPerPixel(at: readonly [number, number, number]): number {
    this.camera.updateMatrixWorld();
    const depth = Math.max(this.depthOf(at), 1e-6);
    const metres = (2 * depth * Math.tan(FIELD_OF_VIEW / 2)) / Math.max(this.canvas.clientHeight, 1);
    return metres / Math.max(this.simulationRoot.matrixWorld.getMaxScaleOnAxis(), 1e-12);
  }

  positionOf(particle: number, out: [number, number, number] = [0, 0, 0]): [number, number, number] {
    const { before, after, fraction, count } = this.molecules.particles;
    const there = particle >= 0 && particle < count;
    for (let axis = 0; axis < 3; axis++) {
      const at = particle * 3 + axis;
      out[axis] = there ? before[at]! + (after[at]! - before[at]!) * fraction : Number.NaN;
    }
    return out;
  }

  setHighlight(particles: readonly number[]): void {
    this.molecules.setHighlight(particles);
  }

  resetCamera(): void {
    this.fitCamera(false);
  }

  cameraPlace(): CameraPlace {
    const orbit = this.controls.destination;
    return { position: this.inSimulation(eyeOf(orbit)), target: this.inSimulation(orbit.target) };
  }

  moveCamera(place: CameraPlace): void {
    const orbit = orbitFrom(this.inWorld(place.position), this.inWorld(place.target));
    if (orbit !== null) this.controls.go(orbit);
  }

  setPointerCaptured(captured: boolean): void {
    this.controls.captured = captured;
  }

  onTick(listener: (timeMs: number) => void): () => void {
    this.listeners.add(listener);
    return () => this.listeners.delete(listener);
  }

  stats(): { fps: number; frameMs: number; particles: number } {
    return { fps: this.rate.fps, frameMs: this.rate.frameMs, particles: this.molecules.particles.count };
  }

  dispose(): void {
    if (this.disposed) return;
    this.disposed = true;
    this.renderer.setAnimationLoop(null);
    this.unsubscribe();
    this.stop.abort();
    this.resizing.disconnect();
    this.controls.dispose();
    this.listeners.clear();
    this.molecules.dispose();
    this.box.dispose();
    this.notice.dispose();
    this.renderer.dispose();
    this.renderer.forceContextLoss();
    this.canvas.remove();
  }

  private tick(timeMs: number): void {
    if (this.disposed || this.lost) return;
    const began = performance.now();
    const presenting = this.renderer.xr.isPresenting;
    if (!this.sized || this.ratio !== window.devicePixelRatio) this.resize();
    const { frame, look } = this;
    this.takeFrame();
    if (!presenting) this.controls.apply(this.camera, timeMs);
    this.look = this.controls.orbit;
    this.rate.begin(timeMs, this.frame?.positions !== frame?.positions || this.look !== look);
    if (!presenting) this.drawAt(this.rate.scale);
    this.molecules.setFraction(this.smoothing ? this.clock.fraction(began) : 1);
    this.camera.updateMatrixWorld();
    this.setDepths(presenting);
    for (const listener of this.listeners) listener(timeMs);
    this.renderer.render(this.scene, this.camera);
    this.rate.end(performance.now() - began);
  }

  private takeFrame(): void {
    const { frame } = this.session;
    if (!frame || frame === this.frame || (this.frame && frame.serial === this.frame.serial)) return;
    // A reset begins anew: nothing moves there from where it was in another run.
    const anew = frame.index === 0 && this.frame?.index !== 0;
    this.frame = frame;
    this.molecules.take(frame, anew || !this.smoothing);
    this.clock.arrive(frame.receivedAt);
    this.box.set(frame.box);
    if (frame.topologySerial !== this.fittedTopology && frame.positions.length >= 3) {
      this.fittedTopology = frame.topologySerial;
      this.rate.restart();
      this.fitCamera(true);
    }
  }

  /** A point of the world (metres) in the simulation (nm), and the other way round. */
  private inSimulation(point: readonly [number, number, number]): [number, number, number] {
    this.simulationRoot.updateMatrixWorld();
    this.simulationRoot.worldToLocal(this.point.set(...point));
    return [this.point.x, this.point.y, this.point.z];
  }

  private inWorld(point: readonly [number, number, number]): [number, number, number] {
    this.simulationRoot.updateMatrixWorld();
    this.simulationRoot.localToWorld(this.point.set(...point));
    return [this.point.x, this.point.y, this.point.z];
  }

  private readSelections(): void {
    if (selectionsChanged(this.session.state, this.selections)) this.molecules.setSelections(this.selections);
  }

  private fitCamera(anew: boolean): void {
    if (!this.frame) return;
    const { positions } = this.frame;
    const ball = boundingBall(positions);
    if (!ball) return;
    this.simulationRoot.updateMatrixWorld();
    const { matrixWorld } = this.simulationRoot;
    const scale = matrixWorld.getMaxScaleOnAxis();
    this.radius = (ball.radius + MARGIN_NM) * scale;
    const place = (x: number, y: number, z: number): [number, number, number] => {
      this.point.set(x, y, z).applyMatrix4(matrixWorld);
      return [this.point.x, this.point.y, this.point.z];
    };
    const { aspect } = this.camera;
    const corners = this.box.visible && this.frame.box ? boxCorners(this.frame.box) : null;
    this.controls.fit(positions, corners, place, MARGIN_NM * scale, aspect, anew ? broadside(positions, place, aspect) : undefined);
  }

  private setDepths(presenting: boolean): void {
    const { distance } = this.controls.orbit;
    const near = presenting ? 0.02 : Math.max(distance * 0.01, 0.001);
    const far = presenting ? 100 : Math.max(distance * 4 + this.radius * 4, 20);
    if (near !== this.camera.near || far !== this.camera.far) {
      this.camera.near = near;
      this.camera.far = far;
      this.camera.updateProjectionMatrix();
    }
    const { uFogRange, uFogDepth, uLine } = this.molecules.uniforms;
    uLine.value = presenting ? LINE_IN_HEADSET : (LINE_PX * Math.tan(FIELD_OF_VIEW / 2)) / Math.max(this.container.clientHeight, 1);
    uFogRange.value.set(distance - this.radius * 0.35, distance + this.radius * 1.4);
    uFogDepth.value = presenting ? 0 : this.fog;
  }

  /** Sets the caster's ray (world) through a point of the page, and `forward` to where the camera looks. */
  private aim(clientX: number, clientY: number): void {
    const area = this.canvas.getBoundingClientRect();
    this.pointer.set(
      ((clientX - area.left) / Math.max(area.width, 1)) * 2 - 1,
      1 - ((clientY - area.top) / Math.max(area.height, 1)) * 2,
    );
    this.camera.updateMatrixWorld();
    this.simulationRoot.updateMatrixWorld();
    this.caster.setFromCamera(this.pointer, this.camera);
  }

  /** How far a point of the simulation is before the camera, metres. */
  private depthOf(at: readonly [number, number, number]): number {
    this.camera.getWorldDirection(this.forward);
    this.simulationRoot.localToWorld(this.point.set(at[0], at[1], at[2]));
    return this.point.sub(this.camera.position).dot(this.forward);
  }

  private resize(): void {
    // A headset has a size of its own; the canvas gets its when that is put down.
    if (this.renderer.xr.isPresenting) return;
    const width = Math.max(this.container.clientWidth, 1);
    const height = Math.max(this.container.clientHeight, 1);
    this.sized = true;
    this.ratio = window.devicePixelRatio;
    this.renderer.setPixelRatio(Math.min(this.ratio, SHARPEST) * this.scale);
    this.renderer.setSize(width, height, false);
    this.camera.aspect = width / height;
    this.camera.updateProjectionMatrix();
  }

  /** Draws at that part of the resolution of the canvas, from the next frame on. */
  private drawAt(scale: number): void {
    this.sized &&= scale === this.scale;
    this.scale = scale;
  }

  private contextLost(event: Event): void {
    event.preventDefault();
    if (this.disposed) return;
    this.lost = true;
    // What was on the card is gone; the next context would be told in vain to delete it.
    this.scene.traverse((object) => {
      if (!(object instanceof Mesh || object instanceof Line || object instanceof Sprite)) return;
      object.geometry.dispose();
      for (const material of [object.material].flat()) material.dispose();
    });
    this.molecules.forget();
    this.notice.show(LOST);
  }

  private contextRestored(): void {
    this.lost = false;
    // The new context knows nothing of the old one's background.
    this.setTheme(this.theme);
    this.sized = false;
    this.molecules.refresh();
    this.notice.hide();
  }
}
