/** The one socket: keeps a connection to the session, and hands on what comes over it. */

import type { AvatarComponent, ConnectionStatus, Frame, Session } from "../contracts.ts";
import { socketUrl, type Place } from "./address.ts";
import { Avatar } from "./avatar.ts";
import { backoffMs } from "./backoff.ts";
import { CommandCalls } from "./commands.ts";
import { FrameMerge } from "./frames.ts";
import { endingOf, SILENT, UNREADABLE, sentence } from "./reasons.ts";
import { StateCopy } from "./state.ts";
import { decodeMessage, encodeMessage } from "./wire.ts";
import { WriteBuffer } from "./writes.ts";

/** Between looks at what is due, ms. */
const TICK_MS = 250;
/** Writes go out with the next animation frame, or after this where none comes (hidden pages, headsets), ms. */
const FLUSH_MS = 34;
/** A command that is not answered by then has failed, ms. */
const COMMAND_LIMIT_MS = 15_000;
/** A server that has nothing to say has let us in when it has not turned us away by then, ms. */
const LET_IN_AFTER_MS = 6000;
/** Between measurements of the way there and back, ms. */
const PROBE_EVERY_MS = 2000;
/** Silence after which the server is asked whether it is there, and after which it is not, ms. */
const ASK_AFTER_MS = 6000;
const SILENCE_MS = 20_000;
/** The page has slept (hidden, or the machine suspended) when it did not come to look for so long, ms. */
const ASLEEP_MS = 5000;
/** More than this unsent, and updates are dropped instead of sent late, bytes. */
const MAX_UNSENT = 1 << 20;

/** What is needed of a WebSocket, or of what stands in for one. */
export interface Line {
  binaryType: BinaryType;
  onopen: ((event: Event) => void) | null;
  onmessage: ((event: MessageEvent) => void) | null;
  onclose: ((event: CloseEvent) => void) | null;
  readonly readyState: number;
  readonly bufferedAmount: number;
  /** Whether more would have to wait: what is written is kept, and merged, meanwhile. */
  readonly full?: boolean;
  send(data: Uint8Array<ArrayBuffer>): void;
  close(): void;
}

/** What is needed of a browser. */
export interface Surroundings {
  readonly place: Place;
  readonly open: (url: string) => Line;
  readonly now: () => number;
  readonly random: () => number;
  readonly onNextFrame: (run: () => void) => void;
}

type Happening = "frame" | "state" | "status";

export class SocketSession implements Session {
  status: ConnectionStatus = { kind: "idle" };
  name = "";
  color = "#888888";
  roundTripMs: number | null = null;
  readonly #frames = new FrameMerge();
  readonly #state = new StateCopy();
  readonly #writes = new WriteBuffer();
  readonly #commands = new CommandCalls(COMMAND_LIMIT_MS);
  readonly #avatar = new Avatar();
  readonly #listeners: Readonly<Record<Happening, Set<() => void>>> = { frame: new Set(), state: new Set(), status: new Set() };
  #socket: Line | null = null;
  #code = "";
  #as: "code" | "password" = "code";
  #attempt = 0;
  #retry: ReturnType<typeof setTimeout> | null = null;
  #ticking: ReturnType<typeof setInterval> | null = null;
  #flushing = false;
  #entered = false;
  #heardAt = 0;
  #askedAt = 0;
  #lookedAt = 0;
  #probe = { count: 0, sentAt: 0 };
  #probedAt = 0;

  constructor(
    readonly playerId: string,
    private readonly around: Surroundings,
  ) {}

  get frame(): Frame | null {
    return this.#frames.frame;
  }

  get state(): ReadonlyMap<string, unknown> {
    return this.#state.values;
  }

  get watching(): boolean {
    return this.#avatar.watching;
  }

  connect(join: { name: string; color: string; code: string }): void {
    this.close();
    this.name = join.name;
    this.color = join.color;
    this.#code = join.code;
    this.#as = "code";
    this.#attempt = 0;
    this.#entered = false;
    this.#open();
  }

  close(): void {
    this.#drop();
    this.#become({ kind: "idle" });
  }

  write(updates: Record<string, unknown>, removals: readonly string[] = []): void {
    this.#writes.add(updates, removals);
    this.#flushSoon();
  }

  setAvatar(components: readonly AvatarComponent[]): void {
    this.#avatar.place(components);
    this.#writeAvatar();
  }

  run(command: string, args: Record<string, unknown> = {}): Promise<Record<string, unknown>> {
    if (this.status.kind !== "open") return Promise.reject(new Error("There is no connection to the session at the moment."));
    const { message, answer } = this.#commands.ask(command, args, this.around.now());
    this.#send({ command: message });
    return answer.catch((error: unknown) => {
      throw new Error(commandProblem(error instanceof Error ? error.message : String(error)));
    });
  }

  on(event: Happening, listener: () => void): () => void {
    this.#listeners[event].add(listener);
    return () => this.#listeners[event].delete(listener);
  }

  // One connection.

  #open(): void {
    this.#become({ kind: "connecting", attempt: this.#attempt });
    const socket = this.around.open(socketUrl(this.around.place, this.name, this.#code, this.#as));
    socket.binaryType = "arraybuffer";
    this.#socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
      setTimeout(() => {
        if (socket === this.#socket && this.status.kind === "connecting") this.#opened();
      }, LET_IN_AFTER_MS);
    };
    socket.onmessage = (event: MessageEvent) => {
      if (socket !== this.#socket) return;
      if (this.status.kind !== "open") this.#opened();
      this.#heardAt = this.around.now();
      try {
        this.#take(event.data as ArrayBuffer | Uint8Array);
      } catch (error) {
        console.error(error);
        this.#lose(UNREADABLE);
      }
    };
    socket.onclose = (event: CloseEvent) => {
      if (socket !== this.#socket) return;
      const ending = endingOf(event.code, event.reason, opened);
      if (ending.wantsPassword && this.#code !== "" && this.#as === "code") {
        this.#drop();
        this.#as = "password";
        this.#open();
      } else if (ending.again || (ending.passes && this.#entered)) {
        this.#lose(ending.reason);
      } else {
        this.#drop();
        this.#become({ kind: "ended", reason: ending.reason });
      }
    };
  }

  // The server lets a connection open before it looks at who comes, so what it sends first is the sign of being let in.
  #opened(): void {
    this.#attempt = 0;
    this.#entered = true;
    this.#heardAt = this.#lookedAt = this.around.now();
    this.#frames.startOver();
    this.#state.startOver();
    this.#avatar.startOver();
    this.#probe.sentAt = 0;
    this.#ticking = setInterval(() => this.#tick(), TICK_MS);
    this.#become({ kind: "open" });
    this.#writeAvatar();
    this.#flush();
  }

  #take(data: ArrayBuffer | Uint8Array): void {
    const message = decodeMessage(data);
    if (message.state !== null) {
      const { updates, removals } = message.state;
      if (this.#state.apply(updates, removals)) this.#tell("state");
      this.#hear(updates, removals);
    }
    for (const command of message.commands) this.#commands.answered(command);
    if (message.frame !== null) {
      this.#frames.apply(message.frame, this.around.now());
      this.#tell("frame");
    }
  }

  /** What the server says of our own keys. */
  #hear(updates: Readonly<Record<string, unknown>>, removals: readonly string[]): void {
    const avatar = `avatar.${this.playerId}`;
    const there = avatar in updates;
    if ((there || removals.includes(avatar)) && this.#avatar.told(there)) this.#tell("status");
    if (updates[`update.index.${this.playerId}`] === this.#probe.count && this.#probe.sentAt > 0) {
      this.roundTripMs = this.around.now() - this.#probe.sentAt;
      this.#probe.sentAt = 0;
    }
  }

  #tick(): void {
    const now = this.around.now();
    this.#commands.expire(now);
    // What came while the page slept has yet to be read, so the silence is ours.
    if (now - this.#lookedAt > ASLEEP_MS) this.#heardAt = now;
    this.#lookedAt = now;
    const silence = now - this.#heardAt;
    if (silence > SILENCE_MS) {
      this.#lose(SILENT);
      return;
    }
    if (silence > ASK_AFTER_MS && now - this.#askedAt > ASK_AFTER_MS) {
      this.#askedAt = now;
      this.run("commands/list").catch(() => undefined); // any answer will do
    }
    this.#writeAvatar();
    if (!this.watching && now - this.#probedAt > PROBE_EVERY_MS) {
      this.#probedAt = now;
      this.#probe = { count: this.#probe.count + 1, sentAt: now };
      this.write({ [`update.index.${this.playerId}`]: this.#probe.count });
    }
  }

  #writeAvatar(): void {
    if (this.status.kind !== "open") return;
    const due = this.#avatar.due(this.around.now(), this.playerId, this.name, this.color);
    if (due !== null) this.write(due);
  }

  #flushSoon(): void {
    if (this.#flushing) return;
    this.#flushing = true;
    let done = false;
    const flush = () => {
      if (done) return;
      done = true;
      this.#flushing = false;
      this.#flush();
    };
    this.around.onNextFrame(flush);
    setTimeout(flush, FLUSH_MS);
  }

  #flush(): void {
    const socket = this.#socket;
    if (this.status.kind !== "open" || socket === null || socket.bufferedAmount > MAX_UNSENT) this.#writes.dropUpdates();
    if (this.status.kind !== "open" || this.#writes.empty) return;
    if (socket?.full === true) {
      this.#flushSoon();
      return;
    }
    this.#send({ state: this.#writes.take() });
  }

  #send(items: Record<string, unknown>): void {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(encodeMessage(items));
  }

  #lose(reason: string): void {
    this.#drop();
    this.#attempt += 1;
    const retryInMs = backoffMs(this.#attempt, this.around.random());
    this.#retry = setTimeout(() => this.#open(), retryInMs);
    this.#become({ kind: "lost", reason, retryInMs });
  }

  /** There is no connection, and none is tried. */
  #drop(): void {
    const socket = this.#socket;
    this.#socket = null;
    if (socket !== null) {
      socket.onopen = socket.onmessage = socket.onclose = null;
      socket.close();
    }
    if (this.#retry !== null) clearTimeout(this.#retry);
    if (this.#ticking !== null) clearInterval(this.#ticking);
    this.#retry = this.#ticking = null;
    this.roundTripMs = null;
    this.#commands.failAll("The connection to the session was lost.");
  }

  #become(status: ConnectionStatus): void {
    this.status = status;
    this.#tell("status");
  }

  #tell(event: Happening): void {
    for (const listener of this.#listeners[event]) listener();
  }
}

/** Why a command failed, for a person. */
export function commandProblem(text: string): string {
  if (/needs (the )?role|may not|role .* (may|is not)|only a host/i.test(text)) return "Your role in this session does not allow this. A host can change it.";
  return sentence(text);
}
