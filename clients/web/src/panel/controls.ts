/** Choices, switches and the strength, as fields of the panel. */

import { make, setText } from "./elements.ts";
import { CHOICES, STRENGTH, strengthened, SWITCHES, type Settings } from "./settings.ts";

export class Controls {
  readonly #fields = new Map<string, { element: HTMLElement; show: () => void }>();

  constructor(
    readonly settings: Settings,
    private readonly onChange: (settings: Settings) => void,
  ) {
    for (const [key, { label, options }] of Object.entries(CHOICES)) {
      const select = make("select", { id: `set-${key}` }, ...options.map(([value, text]) => make("option", { value, textContent: text })));
      select.onchange = () => this.#set(key as keyof Settings, select.value);
      const element = make("div", { className: "field" }, make("label", { htmlFor: select.id, textContent: label }), select);
      this.#fields.set(key, { element, show: () => (select.value = String(settings[key as keyof Settings])) });
    }
    for (const [key, label] of Object.entries(SWITCHES)) {
      const input = make("input", { id: `set-${key}`, type: "checkbox" });
      input.onchange = () => this.#set(key as keyof Settings, input.checked);
      const element = make("div", { className: "switch" }, input, make("label", { htmlFor: input.id, textContent: label }));
      this.#fields.set(key, { element, show: () => (input.checked = settings[key as keyof Settings] === true) });
    }
    this.#fields.set("strength", this.#strength());
    this.show();
  }

  field(key: keyof Settings): HTMLElement {
    return this.#fields.get(key)!.element;
  }

  /** A choice is made from elsewhere, by a key for instance. */
  choose(key: keyof Settings, value: unknown): void {
    this.#set(key, value);
  }

  /** Pulls are so many steps stronger, as far as they can be. */
  strengthen(steps: number): void {
    const { law, strength } = this.settings;
    this.#set("strength", { ...strength, [law]: strengthened(strength[law], steps) });
  }

  show(): void {
    for (const each of this.#fields.values()) each.show();
  }

  #set(key: keyof Settings, value: unknown): void {
    Object.assign(this.settings, { [key]: value });
    this.show();
    this.onChange(this.settings);
  }

  #strength(): { element: HTMLElement; show: () => void } {
    const { label, min, max, step } = STRENGTH;
    const input = make("input", { id: "set-strength", type: "range" });
    Object.assign(input, { min: String(min), max: String(max), step: String(step) });
    const value = make("output", { attributes_: { for: input.id } });
    const { settings } = this;
    input.oninput = () => this.#set("strength", { ...settings.strength, [settings.law]: Number(input.value) });
    const show = () => {
      const power = settings.strength[settings.law];
      input.value = String(power);
      const text = String(Number((10 ** power).toPrecision(2)));
      input.setAttribute("aria-valuetext", text);
      setText(value, text);
    };
    return { element: make("div", { className: "field" }, make("label", { htmlFor: input.id, textContent: label }), make("span", { className: "range" }, input, value)), show };
  }
}
