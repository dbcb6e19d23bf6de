/** A sentence in place of the picture. */

export class Notice {
  private readonly element: HTMLElement;

  constructor(container: HTMLElement) {
    this.element = container.ownerDocument.createElement("p");
    this.element.className = "scene-notice";
    this.element.setAttribute("role", "alert");
    Object.assign(this.element.style, {
      position: "absolute",
      inset: "0",
      margin: "auto",
      width: "fit-content",
      height: "fit-content",
      maxWidth: "32rem",
      padding: "1.5rem",
      textAlign: "center",
    });
    this.element.hidden = true;
    container.append(this.element);
  }

  show(text: string): void {
    this.element.textContent = text;
    this.element.hidden = false;
  }

  hide(): void {
    this.element.hidden = true;
    this.element.textContent = "";
  }

  dispose(): void {
    this.element.remove();
  }
}
