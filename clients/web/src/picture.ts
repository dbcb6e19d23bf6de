/** Everything that is drawn and grabbed, which comes after the page itself. */

import type { Session } from "./contracts.ts";
import type { SessionPanel } from "./panel/panel.ts";

/** The session is drawn in the panel until what is returned is called. */
export function drawn(_session: Session, _panel: SessionPanel): () => void {
  throw new Error("not yet");
}
