/** The page that everybody sees first: who are you, and have you a code? */

import { make, setText } from "./elements.ts";

export interface Join {
  readonly name: string;
  readonly color: string;
  readonly code: string;
}

export class JoinPage {
  readonly element: HTMLElement;
  readonly #name: HTMLInputElement;
  readonly #color: HTMLInputElement;
  readonly #code: HTMLInputElement;
  readonly #problem: HTMLParagraphElement;
  readonly #button: HTMLButtonElement;

  constructor(first: Join, onJoin: (join: Join) => void) {
    this.#name = make("input", { id: "join-name", name: "name", maxLength: 64, autocomplete: "username", value: first.name, required: true });
    this.#color = make("input", { id: "join-color", name: "color", type: "color", value: first.color });
    this.#code = make("input", {
      id: "join-code",
      name: "code",
      maxLength: 200,
      autocomplete: "off",
      spellcheck: false,
      value: first.code,
      attributes_: { autocapitalize: "none", "aria-describedby": "join-code-hint join-problem" },
    });
    this.#problem = make("p", { id: "join-problem", className: "problem", attributes_: { role: "alert" } });
    this.#button = make("button", { type: "submit", className: "primary", textContent: "Join" });
    const form = make(
      "form",
      {},
      make("div", { className: "field" }, make("label", { htmlFor: "join-name", textContent: "Your name" }), this.#name),
      make("div", { className: "field short" }, make("label", { htmlFor: "join-color", textContent: "Your colour" }), this.#color),
      make(
        "div",
        { className: "field wide" },
        make("label", { htmlFor: "join-code", textContent: "Code" }),
        this.#code,
        make("p", { id: "join-code-hint", className: "hint", textContent: "Only if whoever runs the session gave you one." }),
      ),
      this.#problem,
      this.#button,
    );
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      if (this.#button.getAttribute("aria-disabled") === "true") return;
      onJoin({ name: this.#name.value.trim().slice(0, 64), color: this.#color.value, code: this.#code.value.trim() });
    });
    this.element = make(
      "main",
      { className: "join" },
      make("h1", { textContent: "Narupa" }),
      make("p", { textContent: "A molecular simulation that several people watch, and pull on, while it runs." }),
      form,
      make("p", { className: "hint" }, make("a", { href: "/about", textContent: "Other ways to join" })),
    );
  }

  /** Shown while the server thinks about it. */
  wait(text: string): void {
    setText(this.#button, text);
    this.#button.setAttribute("aria-disabled", "true");
  }

  /** The form can be sent again; the sentence says why, if it is for a reason. */
  ready(problem = ""): void {
    setText(this.#button, "Join");
    this.#button.removeAttribute("aria-disabled");
    setText(this.#problem, problem);
    this.#code.setAttribute("aria-invalid", String(/code|invitation/.test(problem)));
  }

  focus(): void {
    (this.#name.value === "" ? this.#name : this.#button).focus();
  }
}
