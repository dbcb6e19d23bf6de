/** The link with which others come in: to be copied, and as a QR code. */

import { encode } from "uqr";
import { drawing, make, setText } from "./elements.ts";

const LOOPBACK = /^https?:\/\/(localhost|127\.|\[::1\])/;

export class InviteDialog {
  readonly element: HTMLDialogElement;
  readonly #copied: HTMLElement;
  readonly #link: HTMLInputElement;
  readonly #picture = make("div", { className: "qr", attributes_: { role: "img", "aria-label": "The link as a QR code" } });
  readonly #note = make("p", { className: "hint" });

  constructor() {
    this.#link = make("input", { id: "invite-link", readOnly: true, onfocus: () => this.#link.select() });
    this.#copied = make("span", { attributes_: { role: "status" } });
    this.element = make(
      "dialog",
      { className: "dialog", attributes_: { "aria-labelledby": "invite-title" } },
      make("h2", { id: "invite-title", textContent: "Invite" }),
      make("label", { htmlFor: "invite-link", textContent: "Whoever opens this link can join:" }),
      this.#link,
      this.#picture,
      this.#note,
      make(
        "div",
        { className: "row" },
        make("button", { type: "button", className: "primary", textContent: "Copy", onclick: () => void this.#copy() }),
        make("button", { type: "button", textContent: "Close", onclick: () => this.element.close() }),
        this.#copied,
      ),
    );
  }

  show(link: string): void {
    this.#link.value = link;
    this.#picture.replaceChildren(drawing(...qrPath(link)));
    setText(this.#copied, "");
    setText(this.#note, LOOPBACK.test(link) ? "This address leads to this computer only; on others, open its name or number in the network instead." : "");
    this.element.showModal();
  }

  async #copy(): Promise<void> {
    try {
      await navigator.clipboard.writeText(this.#link.value);
      setText(this.#copied, "Copied.");
    } catch {
      // Pages without TLS have no clipboard.
      this.#link.select();
      setText(this.#copied, "Press Ctrl+C to copy.");
    }
  }
}

/** View box and path of a text as a QR code. */
export function qrPath(text: string): [viewBox: string, path: string] {
  const { size, data } = encode(text, { border: 2 });
  let path = "";
  data.forEach((row, y) => row.forEach((dark, x) => (path += dark ? `M${x} ${y}h1v1h-1z` : "")));
  return [`0 0 ${size} ${size}`, path];
}
