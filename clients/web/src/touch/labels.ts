/** Names that face the viewer, each drawn once. */

import { CanvasTexture, type Color, type Object3D, Sprite, SpriteMaterial, SRGBColorSpace } from "three";

const HEIGHT_PX = 64;
const FONT = `600 40px system-ui, sans-serif`;
const PADDING_PX = 20;
const MAX_WIDTH_PX = 1024;

export class Label {
  readonly sprite: Sprite;
  /** Width by height. */
  private aspect = 1;
  private text = "";
  private color = -1;
  private readonly material = new SpriteMaterial({ depthTest: false, transparent: true });

  constructor(private readonly parent: Object3D) {
    this.sprite = new Sprite(this.material);
    this.sprite.renderOrder = 10;
    this.sprite.visible = false;
    parent.add(this.sprite);
  }

  /** Says this in that color; nothing is done where it does already. */
  say(text: string, color: Color): void {
    const hex = color.getHex(SRGBColorSpace);
    if (text === this.text && hex === this.color) return;
    this.text = text;
    this.color = hex;
    this.material.map?.dispose();
    this.material.map = text === "" ? null : this.render(text, `#${color.getHexString(SRGBColorSpace)}`);
    this.material.needsUpdate = true;
  }

  /** Is shown as high as that, in units of its parent. */
  show(height: number): void {
    this.sprite.visible = this.text !== "";
    this.sprite.scale.set(height * this.aspect, height, 1);
  }

  hide(): void {
    this.sprite.visible = false;
  }

  dispose(): void {
    this.parent.remove(this.sprite);
    this.material.map?.dispose();
    this.material.dispose();
  }

  private render(text: string, color: string): CanvasTexture {
    const canvas = document.createElement("canvas");
    const context = canvas.getContext("2d")!;
    context.font = FONT;
    canvas.width = Math.min(MAX_WIDTH_PX, Math.ceil(context.measureText(text).width) + 2 * PADDING_PX);
    canvas.height = HEIGHT_PX;
    this.aspect = canvas.width / canvas.height;
    context.fillStyle = "rgba(16, 18, 24, 0.72)";
    context.beginPath();
    context.roundRect(0, 0, canvas.width, canvas.height, HEIGHT_PX / 2);
    context.fill();
    context.fillStyle = color;
    context.fillRect(PADDING_PX, HEIGHT_PX - 8, canvas.width - 2 * PADDING_PX, 3);
    context.font = FONT;
    context.fillStyle = "#fff";
    context.textAlign = "center";
    context.textBaseline = "middle";
    context.fillText(text, canvas.width / 2, canvas.height / 2, canvas.width - 2 * PADDING_PX);
    const texture = new CanvasTexture(canvas);
    texture.colorSpace = SRGBColorSpace;
    return texture;
  }
}
