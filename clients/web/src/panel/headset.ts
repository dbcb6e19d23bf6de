/** Putting on a headset, and leaving it. */

import type { Session, Touch, XrMode } from "../contracts.ts";
import { iconButton, make, setText } from "./elements.ts";

export class Headset {
  /** Fields for the panel. */
  readonly fields: readonly HTMLElement[];
  private readonly row = make("div", { className: "row" });
  /** In the bar; a button comes after it where there is a headset. */
  readonly gap = make("span", { className: "gap" });
  private readonly note = make("p", { className: "hint" });

  constructor(
    session: Session,
    private readonly say: (text: string) => void,
  ) {
    const place = () =>
      session.run("multiuser/radially-orient-origins").then(
        () => say("Everybody has a place"),
        (error: Error) => say(error.message),
      );
    this.fields = [this.row, this.note, button("Place everybody in a circle", () => void place())];
  }

  /** What the headset here offers can be chosen; `onLeave` is told how that ends. */
  async offer({ xr }: Touch, onLeave: (undo: () => void) => void): Promise<void> {
    const { vr, ar, reason } = await xr.support();
    const enter = (mode: XrMode) => void xr.enter(mode).catch((error: Error) => this.say(error.message));
    const offered: [boolean, XrMode, string][] = [
      [vr, "immersive-vr", "Enter VR"],
      [ar, "immersive-ar", "Enter AR"],
    ];
    for (const [there, mode, label] of offered) {
      if (there) this.row.append(button(label, () => enter(mode)));
    }
    if (vr) this.gap.after(iconButton("headset", "Enter VR", () => enter("immersive-vr")));
    setText(this.note, vr || ar ? "" : reason);
    if (!(vr || ar)) return;
    const shared = make("input", { id: "share-place", type: "checkbox", checked: xr.sharePlace });
    shared.onchange = () => (xr.sharePlace = shared.checked);
    this.note.before(make("div", { className: "switch" }, shared, make("label", { htmlFor: shared.id, textContent: "Move the box for everybody" })));
    const leave = button("Leave the headset", () => xr.leave());
    leave.hidden = true;
    this.row.append(leave);
    onLeave(
      xr.on(() => {
        leave.hidden = xr.active === null;
        shared.checked = xr.sharePlace;
      }),
    );
  }
}

function button(label: string, onclick: () => void): HTMLButtonElement {
  return make("button", { type: "button", textContent: label, onclick });
}
