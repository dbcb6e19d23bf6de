/** Mouse, pen, fingers and keys on the canvas: what they grab, and how it follows them. */

import { Matrix4, Vector3 } from "three";
import type { Hit, PullSettings, SceneView, Session } from "../contracts.ts";
import { centreOf } from "./centre.ts";
import { depthFactor, Drag, nudged, set, type Point } from "./drag.ts";
import type { Grabs } from "./grabs.ts";
import { RateLimit } from "./rate.ts";
import { targetOf } from "./targets.ts";

/** How far beside an atom still grabs it, px. */
const SLACK_PX: Readonly<Record<string, number>> = { mouse: 4, pen: 8, touch: 18 };
/** A finger holds an atom after so long, unless another one joins it for the camera. */
const FINGER_DELAY_MS = 120;
/** How often what is under a pointer that rests is looked for again, for it moves. */
const HOVER_PER_SECOND = 10;
const DEPTH_SAMPLES = 32;
const KEYBOARD = "keyboard";

interface Dragging {
  readonly pointer: string;
  readonly id: number;
  readonly finger: boolean;
  readonly drag: Drag;
  x: number;
  y: number;
  moved: boolean;
}

export class Pointers {
  /** The particle under the mouse or the pen. */
  hovered: number | null = null;
  private readonly dragging = new Map<number, Dragging>();
  private readonly fingers = new Set<number>();
  private readonly hovering = { there: false, x: 0, y: 0, slack: 0, moved: false };
  private readonly hoverRate = new RateLimit(HOVER_PER_SECOND);
  private readonly undo: (() => void)[] = [];

  private readonly centre: Point = [0, 0, 0];
  private readonly eye: Point = [0, 0, 0];
  private readonly right: Point = [0, 0, 0];
  private readonly up: Point = [0, 0, 0];
  private readonly vector = new Vector3();
  private readonly inverse = new Matrix4();
  private readonly depth: Point = [0, 0, 0];
  private readonly sample: Point = [0, 0, 0];
  private readonly positionOf = (particle: number, out: Point): Point => this.view.positionOf(particle, out);

  constructor(
    private readonly session: Session,
    private readonly view: SceneView,
    private readonly grabs: Grabs,
    private readonly settings: () => Readonly<PullSettings>,
    private readonly onHover: () => void,
  ) {
    const { canvas } = view;
    canvas.style.touchAction = "none";
    // Captured, so that a grab is known before the camera's controls hear of the pointer.
    this.listen(canvas, "pointerdown", (event) => this.down(event as PointerEvent), { capture: true });
    this.listen(canvas, "pointermove", (event) => this.move(event as PointerEvent), { capture: true });
    this.listen(canvas, "pointerup", (event) => this.lift(event as PointerEvent), { capture: true });
    this.listen(canvas, "pointercancel", (event) => this.lift(event as PointerEvent), { capture: true });
    this.listen(canvas, "lostpointercapture", (event) => this.lost(event as PointerEvent), { capture: true });
    this.listen(canvas, "pointerleave", () => this.leave());
    this.listen(canvas, "wheel", (event) => this.wheel(event as WheelEvent), { capture: true, passive: false });
    this.listen(window, "blur", () => this.releaseAll());
    this.listen(window, "pagehide", () => this.releaseAll());
    this.listen(document, "visibilitychange", () => document.hidden && this.releaseAll());
    this.listen(window, "keydown", (event) => this.key(event as KeyboardEvent), { capture: true });
  }

  /** To be called once per animation frame, before grabs are written. */
  tick(nowMs: number): void {
    for (const one of this.dragging.values()) {
      if (this.grabs.of(one.pointer) === null) {
        this.forget(one); // the session has taken it away
        continue;
      }
      if (!one.moved) continue;
      one.moved = false;
      one.drag.move(this.view.dragPoint(one.x, one.y, one.drag.handle));
      this.grabs.move(one.pointer, one.drag.handle);
    }
    this.hover(nowMs);
  }

  /** Keyboard: what is under the pointer, or else in the middle, is pulled along by so much in the screen's plane, nm. */
  nudge(dx: number, dy: number): void {
    const { frame } = this.session;
    if (frame === null) return;
    if (this.grabs.of(KEYBOARD) === null) {
      const particle = this.hovered ?? this.middle()?.particle;
      if (particle === undefined) return;
      const target = targetOf(particle, frame, this.session.state, this.settings().target);
      if (!centreOf(target.particles, frame, this.positionOf, this.centre)) return;
      if (!this.grabs.begin(KEYBOARD, target, this.centre, performance.now())) return;
    }
    this.view.camera.updateWorldMatrix(true, false);
    this.inverse.copy(this.view.simulationRoot.matrixWorld).invert();
    this.axis(0, this.right);
    this.axis(1, this.up);
    this.grabs.move(KEYBOARD, nudged(this.grabs.of(KEYBOARD)!.handle, this.right, this.up, dx, dy, this.centre));
  }

  releaseAll(): void {
    for (const one of [...this.dragging.values()]) this.forget(one);
    this.grabs.endAll();
  }

  dispose(): void {
    this.releaseAll();
    for (const undo of this.undo) undo();
  }

  private down(event: PointerEvent): void {
    if (event.pointerType === "touch") {
      this.fingers.add(event.pointerId);
      if (this.fingers.size > 1) {
        // To the camera, which has seen the first one come and needs both.
        for (const one of [...this.dragging.values()]) if (one.finger) this.forget(one, true);
        return;
      }
    }
    if (event.button !== 0 || event.shiftKey || event.ctrlKey || event.metaKey || event.altKey) return;
    const { frame } = this.session;
    if (frame === null) return;
    const { clientX: x, clientY: y } = event;
    const hit = this.pick(x, y, SLACK_PX[event.pointerType] ?? 4);
    if (hit === null) return;
    const target = targetOf(hit.particle, frame, this.session.state, this.settings().target);
    if (!centreOf(target.particles, frame, this.positionOf, this.centre)) return;
    const finger = event.pointerType === "touch";
    const pointer = `pointer-${event.pointerId}`;
    if (!this.grabs.begin(pointer, target, this.centre, performance.now(), finger ? FINGER_DELAY_MS : 0)) return;
    const drag = new Drag(this.centre, this.view.dragPoint(x, y, this.centre));
    this.dragging.set(event.pointerId, { pointer, id: event.pointerId, finger, drag, x, y, moved: false });
    this.view.setPointerCaptured(true);
    // One that has been let go already, or that a program made up, cannot be captured.
    if (event.isTrusted && event.buttons > 0) this.view.canvas.setPointerCapture(event.pointerId);
    this.view.canvas.style.cursor = "grabbing";
    if (!finger) this.setHovered(hit.particle);
  }

  private move(event: PointerEvent): void {
    const one = this.dragging.get(event.pointerId);
    if (one !== undefined) {
      one.x = event.clientX;
      one.y = event.clientY;
      one.moved = true;
    } else if (event.pointerType !== "touch") {
      const { hovering } = this;
      hovering.there = event.buttons === 0;
      hovering.x = event.clientX;
      hovering.y = event.clientY;
      hovering.slack = SLACK_PX[event.pointerType] ?? 4;
      hovering.moved = true;
    }
  }

  private lift(event: PointerEvent): void {
    this.fingers.delete(event.pointerId);
    this.lost(event);
  }

  private lost(event: PointerEvent): void {
    const one = this.dragging.get(event.pointerId);
    if (one !== undefined) this.forget(one);
  }

  private leave(): void {
    this.hovering.there = false;
    this.setHovered(null);
  }

  private wheel(event: WheelEvent): void {
    let used = false;
    for (const one of this.dragging.values()) {
      if (one.finger) continue;
      used = true;
      this.eyePoint();
      one.drag.deepen(this.eye, depthFactor(event.deltaY, event.deltaMode));
      this.grabs.move(one.pointer, one.drag.handle);
    }
    if (!used) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  }

  private key(event: KeyboardEvent): void {
    if (event.key !== "Escape" || this.grabs.size === 0) return;
    this.releaseAll();
    event.preventDefault();
  }

  private forget(one: Dragging, toCamera = false): void {
    this.dragging.delete(one.id);
    this.grabs.end(one.pointer);
    const { canvas } = this.view;
    if (!toCamera && canvas.hasPointerCapture(one.id)) canvas.releasePointerCapture(one.id);
    if (this.dragging.size > 0) return;
    this.view.setPointerCaptured(false);
    canvas.style.cursor = this.hovered === null ? "" : "grab";
  }

  private hover(nowMs: number): void {
    const { hovering } = this;
    if (!hovering.there || this.dragging.size > 0) return;
    const due = this.hoverRate.take(nowMs);
    if (!hovering.moved && !due) return;
    hovering.moved = false;
    this.setHovered(this.pick(hovering.x, hovering.y, hovering.slack)?.particle ?? null);
  }

  private setHovered(particle: number | null): void {
    if (this.hovered === particle) return;
    this.hovered = particle;
    if (this.dragging.size === 0) this.view.canvas.style.cursor = particle === null ? "" : "grab";
    this.onHover();
  }

  private pick(x: number, y: number, slackPx: number): Hit | null {
    const pixel = this.view.nmPerPixel(this.middleDepth());
    return this.view.pick(this.view.rayAt(x, y), Number.isFinite(pixel) ? pixel * slackPx : 0);
  }

  private middle(): Hit | null {
    const { left, top, width, height } = this.view.canvas.getBoundingClientRect();
    return this.pick(left + width / 2, top + height / 2, Math.min(width, height) / 4);
  }

  /** About the middle of the system: how large a pixel is there is how large it is at most atoms. */
  private middleDepth(): Point {
    const { frame } = this.session;
    set(this.depth, 0, 0, 0);
    if (frame === null || frame.particleCount === 0) return this.depth;
    const stride = Math.max(1, Math.floor(frame.particleCount / DEPTH_SAMPLES));
    let count = 0;
    for (let i = 0; i < frame.particleCount; i += stride, count++) {
      const position = this.view.positionOf(i, this.sample);
      for (let axis = 0; axis < 3; axis++) this.depth[axis] = this.depth[axis]! + position[axis]!;
    }
    return set(this.depth, this.depth[0] / count, this.depth[1] / count, this.depth[2] / count);
  }

  private eyePoint(): void {
    this.view.camera.updateWorldMatrix(true, false);
    this.inverse.copy(this.view.simulationRoot.matrixWorld).invert();
    this.vector.setFromMatrixPosition(this.view.camera.matrixWorld).applyMatrix4(this.inverse).toArray(this.eye);
  }

  /** One of the camera's axes as a unit vector of simulation space; expects `inverse` to be right. */
  private axis(column: number, out: Point): void {
    this.vector.setFromMatrixColumn(this.view.camera.matrixWorld, column).transformDirection(this.inverse).toArray(out);
  }

  private listen(target: EventTarget, event: string, listener: (event: Event) => void, options: AddEventListenerOptions = {}): void {
    target.addEventListener(event, listener, options);
    this.undo.push(() => target.removeEventListener(event, listener, options));
  }
}
