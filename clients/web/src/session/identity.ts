/** Who somebody is who has not said so. */

/** An id that nobody else has. Works on pages without TLS, too. */
export function newPlayerId(): string {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/**
 * One of the colours around the wheel, `#rrggbb`, that are seen on light and on dark.
 *
 * @param random - 0 to 1.
 */
export function randomColor(random: number): string {
  const channel = (offset: number) => {
    const place = (offset + random * 12) % 12;
    const value = 0.55 - 0.35 * Math.max(-1, Math.min(place - 3, 9 - place, 1));
    return Math.round(255 * value)
      .toString(16)
      .padStart(2, "0");
  };
  return `#${channel(0)}${channel(8)}${channel(4)}`;
}
