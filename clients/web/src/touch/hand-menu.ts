/** The menu in a headset: held over a palm that is turned to the face, and used by pointing at it with the other hand. */

import { CanvasTexture, DoubleSide, type Group, Matrix4, Mesh, MeshBasicMaterial, PlaneGeometry, Quaternion, SRGBColorSpace, Vector3 } from "three";
import type { PullSettings } from "../contracts.ts";
import { palmFacing, type Hand } from "./hand.ts";
import { HEADER, itemAt, MENU, MENU_SIZE, type MenuItem } from "./menu-layout.ts";

/** The menu comes when a palm looks at the face, and goes when it no longer does: cosines. */
const OPENS = 0.7;
const CLOSES = 0.4;
/** It is so far above the palm, metres. */
const ABOVE = 0.17;
/** It follows the hand in about this time, ms. */
const FOLLOW_MS = 70;
const PIXELS_PER_METRE = 2400;
const FONT = "600 32px system-ui, sans-serif";

export class HandMenu {
  /** The hand that holds it; null while it is closed. */
  holder: Hand | null = null;
  private readonly material = new MeshBasicMaterial({ side: DoubleSide, toneMapped: false });
  private readonly mesh = new Mesh(new PlaneGeometry(MENU_SIZE.width, MENU_SIZE.height), this.material);
  private context: CanvasRenderingContext2D | null = null;
  private hovered = -1;
  private law: PullSettings["law"] = "spring";
  private scale = Number.NaN;
  private shared = false;

  private readonly inverse = new Matrix4();
  private readonly matrix = new Matrix4();
  private readonly goal = new Vector3();
  private readonly turn = new Quaternion();
  private readonly eye = new Vector3();
  private readonly origin = new Vector3();
  private readonly direction = new Vector3();

  constructor(private readonly world: Group) {
    this.mesh.visible = false;
    this.mesh.renderOrder = 5;
    world.add(this.mesh);
  }

  /** To be called once per animation frame: it is where a free hand shows its palm, and follows that. */
  follow(head: Matrix4, hands: readonly Hand[], isFree: (hand: Hand) => boolean, elapsedMs: number): void {
    this.eye.setFromMatrixPosition(head);
    const before = this.holder;
    if (before !== null && !(isFree(before) && this.shows(before, CLOSES))) this.holder = null;
    if (this.holder === null) for (const hand of hands) if (this.holder === null && isFree(hand) && this.shows(hand, OPENS)) this.holder = hand;
    this.mesh.visible = this.holder !== null;
    if (this.holder === null) return;
    this.goal.setFromMatrixPosition(this.holder.grip.matrixWorld);
    this.goal.y += ABOVE;
    this.turn.setFromRotationMatrix(this.matrix.lookAt(this.eye, this.goal, UP));
    const share = before === this.holder ? 1 - Math.exp(-Math.max(0, elapsedMs) / FOLLOW_MS) : 1;
    this.mesh.position.lerp(this.goal, share);
    this.mesh.quaternion.slerp(this.turn, share);
    this.mesh.updateWorldMatrix(true, false);
    this.inverse.copy(this.mesh.matrixWorld).invert();
  }

  /** How far along its ray a hand points at the menu, metres; null where it points past it. */
  aimedAt(hand: Hand): number | null {
    if (this.holder === null || hand === this.holder) return null;
    this.origin.setFromMatrixPosition(hand.aim.matrixWorld).applyMatrix4(this.inverse);
    this.direction.set(0, 0, -1).transformDirection(hand.aim.matrixWorld).transformDirection(this.inverse);
    const along = -this.origin.z / this.direction.z;
    if (!(along > 0 && this.origin.z > 0)) return null;
    this.origin.addScaledVector(this.direction, along);
    return Math.abs(this.origin.x) <= MENU_SIZE.width / 2 && Math.abs(this.origin.y) <= MENU_SIZE.height / 2 ? along : null;
  }

  /** What a hand points at on the menu; null for nothing. */
  itemFor(hand: Hand): MenuItem | null {
    return MENU[this.indexFor(hand)] ?? null;
  }

  /** To be called once per animation frame: what is pointed at and what is chosen are to be seen on it. */
  show(hands: readonly Hand[], { law, scale }: Readonly<PullSettings>, shared: boolean): void {
    if (this.holder === null) return;
    let hovered = -1;
    for (const hand of hands) hovered = Math.max(hovered, this.indexFor(hand));
    if (hovered !== this.hovered && hovered >= 0) for (const hand of hands) if (hand !== this.holder) hand.pulse(0.1, 8);
    if (this.context !== null && hovered === this.hovered && law === this.law && scale === this.scale && shared === this.shared) return;
    this.hovered = hovered;
    this.law = law;
    this.scale = scale;
    this.shared = shared;
    this.draw();
  }

  dispose(): void {
    this.world.remove(this.mesh);
    this.mesh.geometry.dispose();
    this.material.map?.dispose();
    this.material.dispose();
  }

  private shows(hand: Hand, least: number): boolean {
    const side = hand.source?.handedness;
    return (side === "left" || side === "right") && hand.grip.visible && palmFacing(hand.grip.matrixWorld, side, this.eye) > least;
  }

  private indexFor(hand: Hand): number {
    if (this.aimedAt(hand) === null) return -1;
    return itemAt(0.5 + this.origin.x / MENU_SIZE.width, 0.5 - this.origin.y / MENU_SIZE.height);
  }

  private draw(): void {
    const context = (this.context ??= this.canvas());
    const { width, height } = context.canvas;
    context.fillStyle = "#14171f";
    context.fillRect(0, 0, width, height);
    context.font = FONT;
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillStyle = "#c8d0e0";
    context.fillText(`Strength ${Number(this.scale.toPrecision(2))}`, width / 2, (HEADER * height) / 2);
    MENU.forEach((item, at) => {
      const [x, y, w, h] = [item.x * width, item.y * height, item.width * width, item.height * height];
      context.fillStyle = at === this.hovered ? "#3d6fe0" : this.isOn(item) ? "#2a4a8f" : "#262b38";
      context.beginPath();
      context.roundRect(x, y, w, h, 14);
      context.fill();
      context.fillStyle = "#fff";
      context.fillText(item.label, x + w / 2, y + h / 2, w - 16);
    });
    this.material.map!.needsUpdate = true;
  }

  private isOn({ action }: MenuItem): boolean {
    return action.kind === "law" ? action.law === this.law : action.kind === "share" && this.shared;
  }

  private canvas(): CanvasRenderingContext2D {
    const canvas = document.createElement("canvas");
    canvas.width = Math.round(MENU_SIZE.width * PIXELS_PER_METRE);
    canvas.height = Math.round(MENU_SIZE.height * PIXELS_PER_METRE);
    this.material.map = new CanvasTexture(canvas);
    this.material.map.colorSpace = SRGBColorSpace;
    this.material.needsUpdate = true;
    return canvas.getContext("2d")!;
  }
}

const UP = new Vector3(0, 1, 0);
