/** Whether there is a headset, and how it is asked for. */

import type { XrMode } from "../contracts.ts";

const NO_HEADSET = "No headset was found. Open this page in a headset's browser, or connect one to this computer.";
const INSECURE = "Headsets need a page that came over TLS: open the session's https address.";
const NOT_ALLOWED = "The browser did not let this page use the headset. Allow it in the page's settings, and try again.";

/** Up to so many particles a headset's own chip draws them at that share of the resolution it offers, with edges that coarse. */
const QUALITIES: readonly { readonly particles: number; readonly scale: number; readonly foveation: number }[] = [
  { particles: 5_000, scale: 1.1, foveation: 0.4 },
  { particles: 40_000, scale: 0.9, foveation: 0.8 },
  { particles: Infinity, scale: 0.7, foveation: 1 },
];

/** How finely a system of so many particles is drawn. */
export function qualityFor(particles: number): { readonly scale: number; readonly foveation: number } {
  return QUALITIES.find((quality) => particles <= quality.particles) ?? QUALITIES.at(-1)!;
}

/** What a headset here offers. */
export async function xrSupport(): Promise<{ readonly vr: boolean; readonly ar: boolean; readonly reason: string }> {
  const system = theSystem();
  if (system === undefined) return { vr: false, ar: false, reason: isSecureContext ? NO_HEADSET : INSECURE };
  const offers = (mode: XrMode) => system.isSessionSupported(mode).catch(() => false);
  const [vr, ar] = await Promise.all([offers("immersive-vr"), offers("immersive-ar")]);
  return { vr, ar, reason: vr || ar ? "" : NO_HEADSET };
}

/** A headset that is ready to be drawn on. Rejects with a sentence for a person. */
export async function requestHeadset(mode: XrMode): Promise<XRSession> {
  const system = theSystem();
  if (system === undefined) throw new Error(isSecureContext ? NO_HEADSET : INSECURE);
  try {
    return await system.requestSession(mode, { optionalFeatures: ["local-floor", "hand-tracking"] });
  } catch (error) {
    throw refused(error);
  }
}

/** Whether it knows where the floor is. */
export function knowsFloor(session: XRSession): boolean {
  return session.enabledFeatures?.includes("local-floor") !== false;
}

/** What a browser says when it does not start a headset, for a person. */
export function refused(error: unknown): Error {
  const { name, message } = error instanceof Error ? error : new Error(String(error));
  const sentence =
    name === "NotSupportedError" ? NO_HEADSET : name === "NotAllowedError" || name === "SecurityError" ? NOT_ALLOWED : `The headset did not start: ${message}`;
  return new Error(sentence, { cause: error });
}

function theSystem(): XRSystem | undefined {
  return (navigator as Navigator & { xr?: XRSystem }).xr;
}
