/** The front end of the Python client's notebook widget. */

import type { Model } from "./model.ts";
import { NotebookView } from "./view.ts";

export default {
  render({ model, el }: { model: Model; el: HTMLElement }): () => void {
    const view = new NotebookView(model, el);
    return () => view.dispose();
  },
};
