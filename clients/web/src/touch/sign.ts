/** Sentences for whoever wears a headset, who sees nothing of the page: before them, above what they work on. */

import { CanvasTexture, type Group, Matrix4, Mesh, MeshBasicMaterial, PlaneGeometry, SRGBColorSpace, Vector3 } from "three";

/** Where it is before the eyes, metres. */
const AHEAD = 0.9;
const ABOVE = 0.2;
const WIDTH = 0.56;
/** It follows the eyes in about this time, ms, so as not to be stuck to them. */
const FOLLOW_MS = 350;
const SHOWN_MS = 5000;
const LINE_LETTERS = 38;
const MAX_LINES = 6;
const LINE_PX = 52;
const PADDING_PX = 28;
const WIDTH_PX = 900;
const FONT = "500 38px system-ui, sans-serif";

/** The text in lines of so many letters at most, none of them broken unless it has to be; what is too much is left out. */
export function wrapped(text: string, letters: number, lines: number): string[] {
  const out: string[] = [];
  let line = "";
  for (const word of text.replace(/[\p{C}\p{Z}]+/gu, " ").trim().split(" ")) {
    const part = [...word].slice(0, letters).join("");
    if (line === "") line = part;
    else if ([...line].length + 1 + [...part].length <= letters) line += ` ${part}`;
    else {
      out.push(line);
      line = part;
    }
    if (out.length === lines) break;
  }
  if (line !== "" && out.length < lines) out.push(line);
  return out;
}

export class Sign {
  private trouble = "";
  private said = "";
  private until = Number.NEGATIVE_INFINITY;
  private drawn = "";
  private there = false;
  private readonly material = new MeshBasicMaterial({ transparent: true, depthTest: false, toneMapped: false });
  private readonly mesh = new Mesh(new PlaneGeometry(1, 1), this.material);
  private readonly goal = new Vector3();
  private readonly eye = new Vector3();
  private readonly matrix = new Matrix4();

  constructor(private readonly world: Group) {
    this.mesh.visible = false;
    this.mesh.renderOrder = 20;
    world.add(this.mesh);
  }

  /** What is to be read now; empty for nothing. */
  get text(): string {
    return this.trouble || this.said;
  }

  /** Says this for a while. */
  say(text: string, nowMs: number, forMs: number = SHOWN_MS): void {
    this.said = text;
    this.until = nowMs + forMs;
  }

  /** Says this for as long as it is so; empty when it is over. */
  warn(text: string): void {
    this.trouble = text;
  }

  /** To be called once per animation frame. */
  tick(nowMs: number, elapsedMs: number, head: Matrix4): void {
    if (nowMs > this.until) this.said = "";
    const { text, mesh } = this;
    mesh.visible = text !== "";
    if (!mesh.visible) {
      this.there = false;
      return;
    }
    if (text !== this.drawn) this.draw(text);
    this.goal.set(0, 0, -1).transformDirection(head);
    this.goal.y = 0;
    if (this.goal.lengthSq() < 1e-4) this.goal.set(0, 1, 0).transformDirection(head).setY(0); // they look at their feet
    this.eye.setFromMatrixPosition(head);
    this.goal.normalize().multiplyScalar(AHEAD).add(this.eye);
    this.goal.y += ABOVE;
    mesh.position.lerp(this.goal, this.there ? 1 - Math.exp(-Math.max(0, elapsedMs) / FOLLOW_MS) : 1);
    mesh.quaternion.setFromRotationMatrix(this.matrix.lookAt(this.eye, mesh.position, UP));
    this.there = true;
  }

  dispose(): void {
    this.world.remove(this.mesh);
    this.mesh.geometry.dispose();
    this.material.map?.dispose();
    this.material.dispose();
  }

  private draw(text: string): void {
    this.drawn = text;
    const lines = wrapped(text, LINE_LETTERS, MAX_LINES);
    const canvas = document.createElement("canvas");
    canvas.width = WIDTH_PX;
    canvas.height = lines.length * LINE_PX + 2 * PADDING_PX;
    const context = canvas.getContext("2d")!;
    context.fillStyle = "rgba(16, 18, 24, 0.86)";
    context.beginPath();
    context.roundRect(0, 0, canvas.width, canvas.height, 28);
    context.fill();
    context.font = FONT;
    context.fillStyle = "#fff";
    context.textAlign = "center";
    context.textBaseline = "middle";
    lines.forEach((line, at) => context.fillText(line, canvas.width / 2, PADDING_PX + (at + 0.5) * LINE_PX, canvas.width - 2 * PADDING_PX));
    this.material.map?.dispose();
    this.material.map = new CanvasTexture(canvas);
    this.material.map.colorSpace = SRGBColorSpace;
    this.material.needsUpdate = true;
    this.mesh.scale.set(WIDTH, (WIDTH * canvas.height) / canvas.width, 1);
  }
}

const UP = new Vector3(0, 1, 0);
