import { Group, PerspectiveCamera, type WebGLRenderer } from "three";
import type { CameraPlace, Hit, Ray, SceneView, Session } from "../contracts.ts";
import type { Point } from "./drag.ts";

const PIXELS_PER_NM = 100;

/** A canvas without a document: what hears of pointers, and who has captured them. */
export class FakeCanvas extends EventTarget {
  readonly style = { cursor: "", touchAction: "" };
  readonly captured = new Set<number>();
  setPointerCapture(id: number): void {
    this.captured.add(id);
  }
  hasPointerCapture(id: number): boolean {
    return this.captured.has(id);
  }
  releasePointerCapture(id: number): void {
    this.captured.delete(id);
    this.dispatchEvent(Object.assign(new Event("lostpointercapture"), { pointerId: id }));
  }
  getBoundingClientRect(): { left: number; top: number; width: number; height: number } {
    return { left: 0, top: 0, width: 400, height: 400 };
  }
}

/** A document for tests, whose canvases take everything and draw nothing. */
export function fakeDocument(): EventTarget & { hidden: boolean; createElement: () => unknown } {
  const context = (canvas: object) =>
    new Proxy({}, { get: (_, key) => (key === "canvas" ? canvas : key === "measureText" ? () => ({ width: 1 }) : () => undefined), set: () => true });
  const createElement = () => {
    const canvas: Record<string, unknown> = { width: 1, height: 1 };
    canvas["getContext"] = () => context(canvas);
    return canvas;
  };
  return Object.assign(new EventTarget(), { hidden: false, createElement });
}

/** A view for tests: 100 px are 1 nm, x to the right and y down, from a camera at z = 10 nm that sees in parallel. */
export class FakeView implements SceneView {
  readonly fakeCanvas = new FakeCanvas();
  readonly canvas = this.fakeCanvas as unknown as HTMLCanvasElement;
  readonly camera = new PerspectiveCamera();
  readonly simulationRoot = new Group();
  readonly worldRoot = new Group();
  readonly controllers = [new Group(), new Group()];
  readonly grips = [new Group(), new Group()];
  readonly fakeXr = {
    enabled: true,
    session: null as unknown,
    space: "",
    setReferenceSpaceType: (type: string) => void (this.fakeXr.space = type),
    setSession: (session: unknown) => Promise.resolve(void (this.fakeXr.session = session)),
    getController: (index: number) => this.controllers[index],
    getControllerGrip: (index: number) => this.grips[index],
    getCamera: () => this.camera,
    scale: 1,
    foveation: 1,
    /** Whether the headset knows where it is. */
    tracked: true,
    setFramebufferScaleFactor: (scale: number) => void (this.fakeXr.scale = scale),
    setFoveation: (foveation: number) => void (this.fakeXr.foveation = foveation),
    getReferenceSpace: () => ({}),
    getFrame: () => ({ getViewerPose: () => (this.fakeXr.tracked ? { transform: { matrix: this.pose() } } : null) }),
  };
  readonly renderer = { xr: this.fakeXr } as unknown as WebGLRenderer;
  highlighted: readonly number[] = [];
  pointerCaptured = false;
  picks = 0;
  private pose(): number[] {
    this.camera.updateMatrixWorld();
    return this.camera.matrixWorld.toArray();
  }
  private readonly ticks = new Set<(timeMs: number) => void>();

  constructor(private readonly session: Session) {
    this.camera.position.set(0, 0, 10);
  }

  setRepresentation(): void {}
  setSmoothing(): void {}
  setShowBox(): void {}
  setTheme(): void {}
  resetCamera(): void {}

  pick({ origin, direction }: Ray, slackNm: number): Hit | null {
    this.picks += 1;
    const { frame } = this.session;
    let best: Hit | null = null;
    for (let particle = 0; particle < (frame?.particleCount ?? 0); particle++) {
      const at = this.positionOf(particle);
      const away = at.map((value, axis) => value - origin[axis]!);
      const along = away.reduce((sum, value, axis) => sum + value * direction[axis]!, 0);
      const aside = Math.hypot(...away.map((value, axis) => value - along * direction[axis]!));
      if (along > 0 && aside < 0.05 + slackNm && (best === null || along < best.distance)) best = { particle, point: at, distance: along };
    }
    return best;
  }

  rayAt(clientX: number, clientY: number): Ray {
    return { origin: [clientX / PIXELS_PER_NM, -clientY / PIXELS_PER_NM, 10], direction: [0, 0, -1] };
  }

  dragPoint(clientX: number, clientY: number, at: readonly [number, number, number]): Point {
    return [clientX / PIXELS_PER_NM, -clientY / PIXELS_PER_NM, at[2]];
  }

  nmPerPixel(): number {
    return 1 / PIXELS_PER_NM;
  }

  positionOf(particle: number, out: Point = [0, 0, 0]): Point {
    const positions = this.session.frame!.positions;
    for (let axis = 0; axis < 3; axis++) out[axis] = positions[3 * particle + axis]!;
    return out;
  }

  setHighlight(particles: readonly number[]): void {
    this.highlighted = particles;
  }

  cameraPlace(): CameraPlace {
    return { position: [0, 0, 10], target: [0, 0, 0] };
  }

  moveCamera(): void {}

  setPointerCaptured(captured: boolean): void {
    this.pointerCaptured = captured;
  }

  onTick(listener: (timeMs: number) => void): () => void {
    this.ticks.add(listener);
    return () => this.ticks.delete(listener);
  }

  tick(timeMs: number): void {
    for (const listener of this.ticks) listener(timeMs);
  }

  stats(): { fps: number; frameMs: number; particles: number } {
    return { fps: 60, frameMs: 1, particles: 0 };
  }

  dispose(): void {}
}
