/** Elements of the page, made in one expression. */

type Child = Node | string | null;
type Properties<Tag extends keyof HTMLElementTagNameMap> = Partial<
  Omit<HTMLElementTagNameMap[Tag], "style" | "dataset" | "list" | "form" | "children">
> & { readonly attributes_?: Readonly<Record<string, string>> };

/** An element with these properties and children; `attributes_` holds what is an attribute only, such as ARIA's. */
export function make<Tag extends keyof HTMLElementTagNameMap>(
  tag: Tag,
  properties: Properties<Tag> = {},
  ...children: readonly Child[]
): HTMLElementTagNameMap[Tag] {
  const element = document.createElement(tag);
  const { attributes_: attributes, ...rest } = properties;
  Object.assign(element, rest);
  for (const [name, value] of Object.entries(attributes ?? {})) element.setAttribute(name, value);
  for (const child of children) if (child !== null) element.append(child);
  return element;
}

const SVG = "http://www.w3.org/2000/svg";

/** A drawing of paths, hidden from screen readers: what it means stands beside it, or in its button's label. */
export function drawing(viewBox: string, path: string): SVGSVGElement {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("viewBox", viewBox);
  svg.setAttribute("aria-hidden", "true");
  const shape = document.createElementNS(SVG, "path");
  shape.setAttribute("d", path);
  shape.setAttribute("fill-rule", "evenodd");
  svg.append(shape);
  return svg;
}

const ICONS = {
  play: "M7 4v16l13-8z",
  pause: "M6 4h4v16H6zm8 0h4v16h-4z",
  step: "M5 4v16l10-8zm11 0h3v16h-3z",
  reset: "M12 5V1L6 6l6 5V7a5.5 5.5 0 1 1-5.5 5.5H4A8 8 0 1 0 12 5z",
  menu: "M3 5h18v2.5H3zm0 5.8h18v2.4H3zm0 5.7h18V19H3z",
  mark: "M3 3h5v2H5v3H3zm13 0h5v5h-2V5h-3zM3 16h2v3h3v2H3zm16 0h2v5h-5v-2h3zm-8-8h2v3h3v2h-3v3h-2v-3H8v-2h3z",
  invite: "M9 4a4 4 0 1 1 0 8 4 4 0 0 1 0-8zm-8 16c0-4 4-6 8-6s8 2 8 6zm17-12h3V5h2v3h3v2h-3v3h-2v-3h-3z",
  headset: "M4 6h16a2 2 0 0 1 2 2v8a2 2 0 0 1-2 2h-4.500l-2-3h-3l-2 3H4a2 2 0 0 1-2-2V8a2 2 0 0 1 2-2z",
  fit: "M3 3h6v2.4H5.400V9H3zm12 0h6v6h-2.400V5.400H15zM3 15h2.400v3.600H9V21H3zm15.600 0H21v6h-6v-2.400h3.600zM12 8.500a3.500 3.500 0 1 1 0 7 3.500 3.500 0 0 1 0-7z",
  help: "M12 2a10 10 0 1 0 0 20 10 10 0 0 0 0-20zm0 2a8 8 0 1 1 0 16 8 8 0 0 1 0-16zm-1.200 11.500h2.400V18h-2.400zM12 6c-2.300 0-3.900 1.500-3.900 3.700h2.300c0-1 .6-1.600 1.600-1.600s1.600.6 1.600 1.400c0 1.500-2.800 1.800-2.800 4.700h2.300c0-1.700 2.900-2 2.900-4.700C16 7.300 14.300 6 12 6z",
} as const;

export type Icon = keyof typeof ICONS;

export function icon(name: Icon): SVGSVGElement {
  return drawing("0 0 24 24", ICONS[name]);
}

/** A button that shows an icon, and says what it does to those who do not see it. */
export function iconButton(name: Icon, label: string, onclick: () => void, shortcut = ""): HTMLButtonElement {
  const title = shortcut === "" ? label : `${label} (${shortcut})`;
  const attributes = { "aria-label": label, ...(shortcut === "" ? {} : { "aria-keyshortcuts": shortcut }) };
  return make("button", { type: "button", className: "icon", title, onclick, attributes_: attributes }, icon(name));
}

/** Sets the text where it is another: what does not change costs no layout. */
export function setText(element: Element, text: string): void {
  if (element.textContent !== text) element.textContent = text;
}
