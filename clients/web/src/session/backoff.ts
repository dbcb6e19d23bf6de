/** How long to wait before trying again. */

export const FIRST_MS = 500;
export const LONGEST_MS = 8000;

/**
 * Doubles with each try up to a bound, and is spread out, so that not everybody comes back at once.
 *
 * @param attempt - 1 for the first try after a loss.
 * @param random - 0 to 1.
 */
export function backoffMs(attempt: number, random: number): number {
  const bound = Math.min(LONGEST_MS, FIRST_MS * 2 ** Math.min(attempt - 1, 16));
  return Math.round(bound * (0.5 + 0.5 * random));
}
