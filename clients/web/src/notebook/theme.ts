/** Whether what surrounds an element is dark. */

/** Of a colour as computed styles have it: how light it is, 0 to 1; null where it lets through what is behind it. */
export function lightness(color: string): number | null {
  const parts = color.match(/[\d.]+%?/g)?.map((part) => (part.endsWith("%") ? Number.parseFloat(part) / 100 : Number.parseFloat(part)));
  if (parts === undefined || parts.length < 3) return null;
  const [red, green, blue, alpha = 1] = parts as [number, number, number, number?];
  if (alpha < 0.5) return null;
  const full = /^rgb/.test(color) ? 255 : 1;
  return (0.2126 * red + 0.7152 * green + 0.0722 * blue) / full;
}

/** By the first background behind the element that hides what is behind it; whatever `otherwise` says where there is none. */
export function surroundedByDark(element: Element, otherwise: () => boolean): boolean {
  for (let around: Element | null = element; around !== null; around = parentOf(around)) {
    const light = lightness(getComputedStyle(around).backgroundColor);
    if (light !== null) return light < 0.5;
  }
  return otherwise();
}

function parentOf(element: Element): Element | null {
  if (element.parentElement !== null) return element.parentElement;
  const root = element.getRootNode();
  return root instanceof ShadowRoot ? root.host : null;
}
