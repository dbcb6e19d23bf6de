/** The panel's section of selections: what is marked becomes one, and each can be shown otherwise, changed, and deleted. */

import type { MarkControl, Session } from "../contracts.ts";
import { newPlayerId } from "../session/identity.ts";
import { make, setText } from "./elements.ts";
import { asked } from "./manage.ts";
import { changed, freeName, newSelection, selectionsOf, type Change, type Selection } from "./selections.ts";

type Options = readonly (readonly [value: string, label: string])[];

const SHAPES: Options = [
  ["", "As the rest"],
  ["ball and stick", "Ball and stick"],
  ["liquorice", "Liquorice"],
  ["goodsell", "Spheres"],
  ["cartoon", "Ribbon"],
];
const COLORS: Options = [
  ["", "As the rest"],
  ["#d43d3d", "Red"],
  ["#e08a1e", "Orange"],
  ["#d9c227", "Yellow"],
  ["#3fa34d", "Green"],
  ["#2aa5a5", "Cyan"],
  ["#3f6fd1", "Blue"],
  ["#8a4fc7", "Purple"],
  ["#8c9099", "Grey"],
];
const GRABBED: Options = [
  ["group", "As a whole"],
  ["single", "Atom by atom"],
  ["none", "Not at all"],
];

interface Row {
  readonly element: HTMLLIElement;
  show(selection: Selection): void;
}

export class SelectionList {
  readonly element: HTMLFieldSetElement;
  readonly #marked = make("p", { className: "hint" });
  readonly #name = make("input", { id: "selection-name", maxLength: 64, autocomplete: "off" });
  readonly #keep: HTMLButtonElement;
  readonly #clear: HTMLButtonElement;
  readonly #list = make("ul", { className: "selections" });
  readonly #rows = new Map<string, Row>();
  #marks: MarkControl | null = null;
  #selections: readonly Selection[] = [];
  #shown = new Map<string, unknown>();

  /** @param tools - What there is to choose about marking. */
  constructor(
    private readonly session: Session,
    private readonly say: (text: string) => void,
    ...tools: readonly HTMLElement[]
  ) {
    this.#keep = make("button", { type: "button", textContent: "Keep as a selection", onclick: () => this.#keepMarked() });
    this.#clear = make("button", { type: "button", textContent: "Clear", onclick: () => this.#marks?.set([]) });
    const name = make("div", { className: "field" }, make("label", { htmlFor: this.#name.id, textContent: "Name" }), this.#name);
    this.element = make("fieldset", {}, ...tools, this.#marked, name, make("div", { className: "row" }, this.#keep, this.#clear), this.#list);
    this.#name.onkeydown = (event) => {
      if (event.key === "Enter") this.#keepMarked();
    };
    this.showMarked();
  }

  attach(marks: MarkControl): void {
    this.#marks = marks;
    this.showMarked();
  }

  /** Whoever only watches changes nothing here. */
  allow(may: boolean): void {
    this.element.disabled = !may;
  }

  showMarked(): void {
    const count = this.#marks?.particles.length ?? 0;
    setText(this.#marked, count === 0 ? "Nothing is marked. Shift and a click, or a long press, marks an atom." : `${markedWords(count)}.`);
    for (const button of [this.#keep, this.#clear]) button.disabled = count === 0;
    this.#name.placeholder = freeName(this.#selections);
  }

  /** The selections of the state are shown. */
  show(): void {
    const values = new Map([...this.session.state].filter(([key]) => key.startsWith("selection.")));
    if (sameValues(values, this.#shown)) return;
    this.#shown = values;
    this.#selections = selectionsOf(this.session.state);
    const keys = new Set(this.#selections.map(({ key }) => key));
    for (const [key, row] of this.#rows) {
      if (keys.has(key)) continue;
      row.element.remove();
      this.#rows.delete(key);
    }
    this.#selections.forEach((selection, at) => {
      let row = this.#rows.get(selection.key);
      if (row === undefined) {
        row = this.#row(selection.key);
        this.#rows.set(selection.key, row);
        this.#list.insertBefore(row.element, this.#list.children[at] ?? null);
      }
      row.show(selection);
    });
    this.showMarked();
  }

  #keepMarked(): void {
    const particles = this.#marks?.particles ?? [];
    if (particles.length === 0) return;
    const name = this.#name.value.trim() || freeName(this.#selections);
    const { key, value } = newSelection(newPlayerId(), name, particles);
    this.session.write({ [key]: value });
    this.say(`“${name}” is a selection now`);
    this.#name.value = "";
    this.#marks?.set([]);
  }

  #row(key: string): Row {
    const change = (made: Change) => {
      if (this.session.state.has(key)) this.session.write({ [key]: changed(this.session.state.get(key), made) });
    };
    const shown = make("input", { type: "checkbox", id: `${key}-shown`, onchange: () => change({ hidden: !shown.checked }) });
    const shape = choice(`${key}-shape`, "Shape", SHAPES, (value) => change({ shape: value }));
    const color = choice(`${key}-color`, "Colour", COLORS, (value) => change({ color: value }));
    const grabbed = choice(`${key}-grabbed`, "Grabbed", GRABBED, (value) => change({ grabbed: value }));
    const mark = make("button", { type: "button", textContent: "Mark its atoms" });
    const remove = asked("Delete", "Delete it?", () => this.session.write({}, [key]));
    const [name, count] = [make("span", { className: "name" }), make("span", { className: "hint" })];
    const element = make(
      "li",
      {},
      make(
        "details",
        {},
        make("summary", {}, name, " ", count),
        make("div", { className: "switch" }, shown, make("label", { htmlFor: shown.id, textContent: "Show" })),
        shape.element,
        color.element,
        grabbed.element,
        make("div", { className: "row" }, mark, remove),
      ),
    );
    const show = (selection: Selection) => {
      setText(name, selection.name);
      setText(count, aboutSelection(selection));
      shown.checked = !selection.hidden;
      shape.show(selection.shape);
      color.show(selection.color);
      grabbed.show(selection.grabbed);
      mark.hidden = selection.particles === null;
      mark.onclick = () => this.#marks?.set(selection.particles ?? []);
    };
    return { element, show };
  }
}

/** Others come and go in the state many times a second, and a selection may name all atoms there are. */
function sameValues(one: ReadonlyMap<string, unknown>, other: ReadonlyMap<string, unknown>): boolean {
  return one.size === other.size && [...one].every(([key, value]) => other.get(key) === value);
}

export function markedWords(count: number): string {
  return count === 1 ? "1 atom is marked" : `${count.toLocaleString("en")} atoms are marked`;
}

function aboutSelection({ particles, hidden }: Selection): string {
  const count = particles === null ? "all atoms" : particles.length === 1 ? "1 atom" : `${particles.length.toLocaleString("en")} atoms`;
  return hidden ? `${count}, hidden` : count;
}

/** A field of options; what is none of them is one more, for others may write what they like. */
function choice(id: string, label: string, options: Options, onChoice: (value: string) => void): { element: HTMLElement; show: (value: string) => void } {
  const select = make("select", { id }, ...options.map(([value, textContent]) => make("option", { value, textContent })));
  select.onchange = () => onChoice(select.value);
  const element = make("div", { className: "field" }, make("label", { htmlFor: id, textContent: label }), select);
  const show = (value: string) => {
    if (![...select.options].some((option) => option.value === value)) select.append(make("option", { value, textContent: value }));
    select.value = value;
  };
  return { element, show };
}
