/** Puts the parts together: the join page first, and the session once it lets us in. */

import type { ConnectionStatus } from "./contracts.ts";
import { JoinPage, type Join } from "./panel/join.ts";
import { SessionPanel } from "./panel/panel.ts";
import { asked } from "./session/address.ts";
import { newPlayerId, randomColor } from "./session/identity.ts";
import { SocketSession } from "./session/socket.ts";

const NAME = "narupa.name";
const COLOR = "narupa.color";
const PLAYER = "narupa.player";
const JOINED = "narupa.joined";

// With the page, and before they are needed: whoever types a name gives them the time to come.
const picture = import("./picture.ts");

function kept(storage: Storage, key: string, otherwise: () => string): string {
  const value = storage.getItem(key) ?? otherwise();
  storage.setItem(key, value);
  return value;
}

const root = document.getElementById("app")!;
const session = new SocketSession(kept(sessionStorage, PLAYER, newPlayerId), {
  place: location,
  open: (url) => new WebSocket(url),
  now: () => performance.now(),
  random: Math.random,
  onNextFrame: (run) => requestAnimationFrame(run),
});
const link = asked(location);
const color = kept(localStorage, COLOR, () => randomColor(Math.random()));
let code = sessionStorage.getItem(JOINED) ?? link.code;

const page = new JoinPage({ name: link.name || (localStorage.getItem(NAME) ?? ""), color, code }, join);
root.append(page.element);

let panel: SessionPanel | null = null;
let leavePicture: (() => void) | null = null;

function join(who: Join): void {
  localStorage.setItem(NAME, who.name);
  localStorage.setItem(COLOR, who.color);
  code = who.code;
  session.connect(who);
  page.wait("Joining…");
}

function show(status: ConnectionStatus): void {
  if (status.kind === "open" && panel === null) {
    sessionStorage.setItem(JOINED, code);
    page.element.remove();
    panel = new SessionPanel({ root, session, code: () => code, onLeave: () => session.close() });
    void attach(panel);
  } else if (status.kind === "ended" || status.kind === "idle") {
    leave(status.kind === "ended" ? status.reason : "");
  } else if (status.kind === "lost" && panel === null) {
    session.close();
    page.ready(status.reason);
  }
}

async function attach(shown: SessionPanel): Promise<void> {
  try {
    const { drawn } = await picture;
    if (shown === panel) leavePicture = drawn(session, shown);
  } catch (error) {
    console.error(error);
    shown.announce("This browser cannot draw the simulation: it lacks WebGL 2.");
  }
}

function leave(reason: string): void {
  sessionStorage.removeItem(JOINED);
  leavePicture?.();
  panel?.dispose();
  leavePicture = panel = null;
  if (!page.element.isConnected) {
    root.append(page.element);
    page.focus();
  }
  page.ready(reason);
}

session.on("status", () => show(session.status));
if (sessionStorage.getItem(JOINED) !== null && localStorage.getItem(NAME)) {
  join({ name: localStorage.getItem(NAME) ?? "", color, code }); // the page was reloaded
} else {
  page.focus();
}
