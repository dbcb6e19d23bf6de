/** Mouse, pen, fingers and keys on the canvas: what they grab, and how it follows them. */

import type { PullSettings, SceneView, Session } from "../contracts.ts";
import { centreOf } from "./centre.ts";
import { depthFactor, Drag, nudged, type Point } from "./drag.ts";
import type { Grabs } from "./grabs.ts";
import type { Marks } from "./marks.ts";
import { RateLimit } from "./rate.ts";
import { Sight } from "./sight.ts";
import { targetOf, unitOf } from "./targets.ts";

/** How far beside an atom still grabs it, px. */
const SLACK_PX: Readonly<Record<string, number>> = { mouse: 4, pen: 8, touch: 18 };
/** A finger holds an atom after so long, unless another one joins it for the camera. */
const FINGER_DELAY_MS = 120;
/** A finger that holds an atom for so long, ms, and moves no further than this, px, marks it. */
const LONG_PRESS_MS = 550;
const STILL_PX = 10;
/** A click moves no further than this, px. */
const CLICK_PX = 5;
/** How often what is under a pointer that rests is looked for again, for it moves. */
const HOVER_PER_SECOND = 10;
const KEYBOARD = "keyboard";

interface Dragging {
  readonly pointer: string;
  readonly id: number;
  readonly finger: boolean;
  readonly drag: Drag;
  readonly particle: number;
  /** When it was pressed; null once it can be no long press any more. */
  pressedAt: number | null;
  readonly fromX: number;
  readonly fromY: number;
  x: number;
  y: number;
  moved: boolean;
}

/** A click that is to mark a particle, unless it becomes a drag. */
interface Click {
  readonly particle: number;
  readonly x: number;
  readonly y: number;
}

export class Pointers {
  /** The particle under the mouse or the pen. */
  hovered: number | null = null;
  private readonly dragging = new Map<number, Dragging>();
  private readonly clicks = new Map<number, Click>();
  private readonly fingers = new Set<number>();
  private readonly hovering = { there: false, x: 0, y: 0, slack: 0, moved: false };
  private readonly hoverRate = new RateLimit(HOVER_PER_SECOND);
  private readonly undo: (() => void)[] = [];

  private readonly centre: Point = [0, 0, 0];
  private readonly sight: Sight;
  private readonly positionOf = (particle: number, out: Point): Point => this.view.positionOf(particle, out);

  constructor(
    private readonly session: Session,
    private readonly view: SceneView,
    private readonly grabs: Grabs,
    private readonly settings: () => Readonly<PullSettings>,
    private readonly onHover: () => void,
    private readonly marks: Marks,
  ) {
    this.sight = new Sight(session, view);
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
      if (one.pressedAt !== null && nowMs - one.pressedAt > LONG_PRESS_MS) {
        this.forget(one);
        this.mark(one.particle);
        navigator.vibrate?.(15);
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
      const particle = this.hovered ?? this.sight.middle()?.particle;
      if (particle === undefined) return;
      const target = targetOf(particle, frame, this.session.state, this.settings().target);
      if (!centreOf(target.particles, frame, this.positionOf, this.centre)) return;
      if (!this.grabs.begin(KEYBOARD, target, this.centre, performance.now())) return;
    }
    const { right, up } = this.sight.axes();
    this.grabs.move(KEYBOARD, nudged(this.grabs.of(KEYBOARD)!.handle, right, up, dx, dy, this.centre));
  }

  /** Keyboard: what is under the pointer, or else in the middle, is marked, or is not any more. */
  markHere(): void {
    const particle = this.hovered ?? this.sight.middle()?.particle;
    if (particle !== undefined) this.mark(particle);
  }

  releaseAll(): void {
    this.clicks.clear();
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
        this.clicks.clear();
        return;
      }
    }
    if (event.button !== 0 || event.ctrlKey || event.metaKey || event.altKey) return;
    const { frame } = this.session;
    if (frame === null) return;
    const { clientX: x, clientY: y } = event;
    const hit = this.sight.pick(x, y, SLACK_PX[event.pointerType] ?? 4);
    if (hit === null) return;
    if (event.shiftKey || this.marks.active) {
      this.clicks.set(event.pointerId, { particle: hit.particle, x, y });
      return;
    }
    const target = targetOf(hit.particle, frame, this.session.state, this.settings().target);
    if (!centreOf(target.particles, frame, this.positionOf, this.centre)) return;
    const finger = event.pointerType === "touch";
    const pointer = `pointer-${event.pointerId}`;
    if (!this.grabs.begin(pointer, target, this.centre, performance.now(), finger ? FINGER_DELAY_MS : 0)) return;
    const drag = new Drag(this.centre, this.view.dragPoint(x, y, this.centre));
    const pressedAt = finger ? performance.now() : null;
    const { particle } = hit;
    this.dragging.set(event.pointerId, { pointer, id: event.pointerId, finger, drag, particle, pressedAt, fromX: x, fromY: y, x, y, moved: false });
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
      if (Math.hypot(one.x - one.fromX, one.y - one.fromY) > STILL_PX) one.pressedAt = null;
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
    const click = this.clicks.get(event.pointerId);
    this.clicks.delete(event.pointerId);
    if (click !== undefined && event.type === "pointerup" && Math.hypot(event.clientX - click.x, event.clientY - click.y) <= CLICK_PX) {
      this.mark(click.particle);
    }
    this.lost(event);
  }

  private mark(particle: number): void {
    const { frame } = this.session;
    if (frame !== null) this.marks.toggle(unitOf(particle, frame, this.marks.unit));
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
      one.drag.deepen(this.sight.eye(), depthFactor(event.deltaY, event.deltaMode));
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
    this.setHovered(this.sight.pick(hovering.x, hovering.y, hovering.slack)?.particle ?? null);
  }

  private setHovered(particle: number | null): void {
    if (this.hovered === particle) return;
    this.hovered = particle;
    if (this.dragging.size === 0) this.view.canvas.style.cursor = particle === null ? "" : "grab";
    this.onHover();
  }

  private listen(target: EventTarget, event: string, listener: (event: Event) => void, options: AddEventListenerOptions = {}): void {
    target.addEventListener(event, listener, options);
    this.undo.push(() => target.removeEventListener(event, listener, options));
  }
}
