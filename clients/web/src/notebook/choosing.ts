/** Which particles are selected after a click. */

/**
 * The particles of `hit` are the selection; they are none where they were it already. With `more`, they are added to what is
 * selected, or taken out where all of them are in it.
 */
export function chosen(selected: readonly number[], hit: readonly number[], more: boolean): number[] {
  const before = new Set(selected);
  const within = hit.every((particle) => before.has(particle));
  if (!more) return within && before.size === hit.length ? [] : sorted(hit);
  for (const particle of hit) {
    if (within) before.delete(particle);
    else before.add(particle);
  }
  return sorted(before);
}

/** Particles as somebody else gave them. */
export function particlesOf(said: unknown): readonly number[] {
  return Array.isArray(said) ? said.filter((each) => Number.isSafeInteger(each) && each >= 0) : [];
}

function sorted(particles: Iterable<number>): number[] {
  return [...particles].sort((one, other) => one - other);
}
