/** Everything that is drawn and grabbed, which comes after the page itself. */

import type { Session } from "./contracts.ts";
import type { SessionPanel } from "./panel/panel.ts";
import { createSceneView } from "./scene/index.ts";
import { createTouch } from "./touch/index.ts";

/**
 * The session is drawn in the panel until what is returned is called.
 *
 * Throws an Error, whose message is a sentence for a person, where the browser cannot draw.
 */
export function drawn(session: Session, panel: SessionPanel): () => void {
  const scene = createSceneView(panel.stage, session);
  const touch = createTouch(session, scene, {
    onRefused: (sentence) => panel.announce(sentence),
    onChoice: (choice) => panel.choosePull(choice),
  });
  panel.attach(scene, touch);
  return () => {
    touch.dispose();
    scene.dispose();
  };
}
