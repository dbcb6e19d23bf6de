/** Moves the camera by mouse, touch, wheel and keyboard. */

import type { PerspectiveCamera } from "three";
import { between, eyeOf, FIRST_LOOK, fitted, nearestTurn, type Orbit, panned, type Placing, turned, zoomed } from "./orbit.ts";
import { Twist } from "./twist.ts";

const TURN_PER_PIXEL = 0.0065;
const TURN_PER_KEY = 0.12;
const PAN_PER_KEY = 40;
const ZOOM_PER_KEY = 1.12;
const ZOOM_PER_WHEEL_PIXEL = 0.0016;
/** So many times further away is not too far for the box to be seen as well. */
const FURTHER_FOR_BOX = 1.6;
/** Of the way to where the camera is going, what is left after a second. */
const LEFT_AFTER_SECOND = 1e-7;

interface Pointer {
  x: number;
  y: number;
  readonly pans: boolean;
}

export class CameraControls {
  /** Pointers and keys are somebody else's while this is set. */
  captured = false;
  private goal: Orbit = { target: [0, 0, 0], yaw: FIRST_LOOK.yaw, pitch: FIRST_LOOK.pitch, distance: 1 };
  private shown: Orbit = this.goal;
  private lastMs = 0;
  private readonly pointers = new Map<number, Pointer>();
  private readonly twist = new Twist();
  private readonly stop = new AbortController();
  private readonly stillness = matchMedia("(prefers-reduced-motion: reduce)");

  constructor(private readonly canvas: HTMLCanvasElement, private readonly refit: () => void) {
    const on = { signal: this.stop.signal };
    canvas.addEventListener("pointerdown", (event) => this.press(event), on);
    canvas.addEventListener("pointermove", (event) => this.drag(event), on);
    for (const end of ["pointerup", "pointercancel", "lostpointercapture"] as const) {
      canvas.addEventListener(end, (event) => this.pointers.delete(event.pointerId), on);
    }
    canvas.addEventListener("wheel", (event) => this.wheel(event), { ...on, passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event), on);
    canvas.addEventListener("contextmenu", (event) => event.preventDefault(), on);
  }

  /**
   * Looks at these points (3N, nm), eased to; from `yaw` at once if it is given. The corners of the box (nm) are to be seen as well,
   * unless what is in it would be small then.
   */
  fit(points: Float32Array, corners: Float32Array | null, place: Placing, margin: number, aspect: number, yaw?: number): void {
    const from = yaw === undefined ? this.goal : { ...this.goal, yaw, pitch: FIRST_LOOK.pitch };
    this.goal = fitted(from, [points], place, margin, aspect);
    if (corners !== null) {
      const whole = fitted(from, [points, corners], place, margin, aspect);
      if (whole.distance < this.goal.distance * FURTHER_FOR_BOX) this.goal = whole;
    }
    if (yaw !== undefined) this.shown = this.goal;
  }

  get orbit(): Orbit {
    return this.shown;
  }

  /** Where the camera is going. */
  get destination(): Orbit {
    return this.goal;
  }

  /** The camera goes there, eased. */
  go(orbit: Orbit): void {
    this.goal = nearestTurn(orbit, this.shown);
  }

  /** Puts the camera where it is at that time. */
  apply(camera: PerspectiveCamera, timeMs: number): void {
    const elapsed = Math.min(Math.max(timeMs - this.lastMs, 0), 100) / 1000;
    this.lastMs = timeMs;
    if (this.shown !== this.goal) {
      const part = this.stillness.matches ? 1 : 1 - LEFT_AFTER_SECOND ** elapsed;
      this.shown = closeTo(this.shown, this.goal) ? this.goal : between(this.shown, this.goal, part);
    }
    const [x, y, z] = eyeOf(this.shown);
    camera.position.set(x, y, z);
    camera.lookAt(...this.shown.target);
  }

  dispose(): void {
    this.stop.abort();
  }

  private press(event: PointerEvent): void {
    if (event.pointerType === "mouse" && this.pointers.size > 0) return;
    const pans = event.button === 1 || event.button === 2 || event.shiftKey;
    this.twist.reset();
    this.pointers.set(event.pointerId, { x: event.clientX, y: event.clientY, pans });
    // One that has been let go already, or that a program made up, cannot be captured.
    if (event.isTrusted && event.buttons > 0) this.canvas.setPointerCapture(event.pointerId);
  }

  private drag(event: PointerEvent): void {
    const pointer = this.pointers.get(event.pointerId);
    if (!pointer) return;
    const right = event.clientX - pointer.x;
    const down = event.clientY - pointer.y;
    const apart = this.spread();
    const bearing = this.bearing();
    pointer.x = event.clientX;
    pointer.y = event.clientY;
    if (this.captured) return;
    if (this.pointers.size >= 2) {
      const share = 1 / this.pointers.size;
      const spread = this.spread();
      if (apart > 0 && spread > 0) this.goal = zoomed(this.goal, apart / spread);
      this.goal = turned(this.goal, this.twist.by(bearing, this.bearing()), 0);
      this.goal = panned(this.goal, right * share, down * share, this.canvas.clientHeight);
    } else if (pointer.pans) {
      this.goal = panned(this.goal, right, down, this.canvas.clientHeight);
    } else {
      this.goal = turned(this.goal, -right * TURN_PER_PIXEL, down * TURN_PER_PIXEL);
    }
  }

  /** How far two fingers are apart, px; 0 for one. */
  private spread(): number {
    const [one, other] = this.pointers.values();
    return one && other ? Math.hypot(one.x - other.x, one.y - other.y) : 0;
  }

  /** The direction from one finger to the other on the screen, radians. */
  private bearing(): number {
    const [one, other] = this.pointers.values();
    return one && other ? Math.atan2(other.y - one.y, other.x - one.x) : 0;
  }

  private wheel(event: WheelEvent): void {
    event.preventDefault();
    if (this.captured) return;
    const pixels = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? event.deltaY * 16 : event.deltaY;
    // A pinch on a trackpad comes as a wheel with Ctrl, in smaller steps.
    const rate = ZOOM_PER_WHEEL_PIXEL * (event.ctrlKey ? 5 : 1);
    this.goal = zoomed(this.goal, Math.exp(Math.min(Math.max(pixels * rate, -0.5), 0.5)));
  }

  private key(event: KeyboardEvent): void {
    if (this.captured || event.defaultPrevented || event.ctrlKey || event.metaKey || event.altKey) return;
    const moved = this.keyed(event.key, event.shiftKey);
    if (!moved) return;
    event.preventDefault();
    this.goal = moved;
  }

  /** Arrows alone are for pulling. */
  private keyed(key: string, shift: boolean): Orbit | null {
    const { goal } = this;
    const height = this.canvas.clientHeight;
    switch (shift ? `Shift ${key}` : key.toLowerCase()) {
      case "Shift ArrowLeft":
        return turned(goal, -TURN_PER_KEY, 0);
      case "Shift ArrowRight":
        return turned(goal, TURN_PER_KEY, 0);
      case "Shift ArrowUp":
        return turned(goal, 0, TURN_PER_KEY);
      case "Shift ArrowDown":
        return turned(goal, 0, -TURN_PER_KEY);
      case "a":
        return panned(goal, PAN_PER_KEY, 0, height);
      case "d":
        return panned(goal, -PAN_PER_KEY, 0, height);
      case "w":
        return panned(goal, 0, PAN_PER_KEY, height);
      case "s":
        return panned(goal, 0, -PAN_PER_KEY, height);
      case "+":
      case "Shift +":
      case "=":
        return zoomed(goal, 1 / ZOOM_PER_KEY);
      case "-":
      case "Shift _":
        return zoomed(goal, ZOOM_PER_KEY);
      case "home":
        this.refit();
        return this.goal;
      default:
        return null;
    }
  }
}

function closeTo(one: Orbit, other: Orbit): boolean {
  const near = Math.max(other.distance, 1e-6) * 1e-4;
  return (
    Math.abs(one.yaw - other.yaw) < 1e-4 &&
    Math.abs(one.pitch - other.pitch) < 1e-4 &&
    Math.abs(one.distance - other.distance) < near &&
    one.target.every((value, axis) => Math.abs(value - other.target[axis]!) < near)
  );
}
