/** What a session looks like, in three dimensions. */

import type { SceneView, Session } from "../contracts.ts";
import { Notice } from "./notice.ts";
import { SessionScene } from "./view.ts";

const UNAVAILABLE =
  "This browser cannot draw the simulation: it has no WebGL 2, or it is switched off. " +
  "Use a current Firefox, Chrome, Edge or Safari with hardware acceleration switched on.";

/**
 * Draws the session in the container, until disposed.
 *
 * Throws an Error, whose message is a sentence for a person that the container shows already, where the browser has no WebGL 2.
 */
export function createSceneView(container: HTMLElement, session: Session): SceneView {
  // A canvas that has given out one kind of context gives out no other, so the question is put to one of its own.
  const probe = container.ownerDocument.createElement("canvas").getContext("webgl2");
  probe?.getExtension("WEBGL_lose_context")?.loseContext();
  try {
    if (probe) return new SessionScene(container, session);
  } catch (error) {
    // What the browser says of it is for developers; people get the sentence.
    console.warn(error);
  }
  new Notice(container).show(UNAVAILABLE);
  throw new Error(UNAVAILABLE);
}
