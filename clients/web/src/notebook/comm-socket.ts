/**
 * What stands in for a WebSocket in a notebook: the messages of one viewer over the comm of its widget.
 *
 * The kernel sends only so much ahead of what is acknowledged here. A frame is, once it is drawn: so a slow browser gets fewer,
 * and a hidden one none. A kernel that runs a cell may send all the same and hear nothing, so that no more than some
 * acknowledgements wait for it. Messages that the notebook's server has left out show by their numbers, and end the connection.
 */

import type { Line } from "../session/socket.ts";
import { isMap } from "../session/wire.ts";
import type { Comm } from "./model.ts";

/** Writes that may be under way; those after them are merged until one has arrived. */
const WRITES_UNDER_WAY = 4;
/** Acknowledgements that the kernel has not heard of; then only one so often, should they be lost. */
export const ACKS_UNDER_WAY = 16;
export const ACK_AGAIN_MS = 60_000;
const OPEN_LIMIT_MS = 10_000;
/** The kernel says something every five seconds. */
const SILENCE_MS = 18_000;
const LOOK_EVERY_MS = 2000;
/** Of RFC 6455: went away, without a word. */
const GONE = 1006;

export const NO_ANSWER = "The notebook's kernel does not answer: it is busy, or was restarted. If it was, run the cell again.";
export const LEFT_OUT = "The notebook has left out a part of what the kernel sent.";

export interface Surroundings {
  readonly now: () => number;
  readonly onNextFrame: (run: () => void) => void;
}

export class CommSocket implements Line {
  binaryType: BinaryType = "arraybuffer";
  onopen: ((event: Event) => void) | null = null;
  onmessage: ((event: MessageEvent) => void) | null = null;
  onclose: ((event: CloseEvent) => void) | null = null;
  readyState = 0;
  readonly bufferedAmount = 0;
  readonly #began: number;
  readonly #looking: ReturnType<typeof setInterval>;
  readonly #listener = (content: unknown, buffers: readonly DataView[]) => this.#hear(content, buffers);
  #heardAt: number;
  #number = 0;
  #frames = 0;
  #states = 0;
  #drawn = 0;
  #drawing = false;
  #unwritten = 0;
  #acks = 0;
  #acksHeard = 0;
  #ackedAt = 0;
  #ackDue = false;

  /** Asks the kernel to be let in as the viewer of that id, which is nobody else's. */
  constructor(
    private readonly comm: Comm,
    private readonly viewer: string,
    private readonly around: Surroundings,
  ) {
    this.#began = this.#heardAt = around.now();
    comm.on("msg:custom", this.#listener);
    this.#looking = setInterval(() => this.#look(), LOOK_EVERY_MS);
    this.#say({ kind: "open" });
  }

  get full(): boolean {
    return this.#unwritten >= WRITES_UNDER_WAY;
  }

  send(data: Uint8Array<ArrayBuffer>): void {
    if (this.readyState !== 1) return;
    this.#unwritten += 1;
    this.#say({ kind: "message" }, [data.slice().buffer]);
  }

  close(): void {
    if (this.readyState === 3) return;
    this.#end();
    this.#say({ kind: "close" });
  }

  #hear(content: unknown, buffers: readonly DataView[]): void {
    if (!isMap(content) || !(content["viewer"] === this.viewer || content["viewer"] === "")) return;
    this.#heardAt = this.around.now();
    switch (content["kind"]) {
      case "opened":
        if (this.readyState === 0) {
          this.readyState = 1;
          this.onopen?.(new Event("open"));
        }
        return;
      case "message":
        return this.#take(content, buffers[0]);
      case "written":
        this.#unwritten = Math.max(0, this.#unwritten - 1);
        return;
      case "closed":
        return this.#lose(Number(content["code"]), String(content["reason"] ?? ""));
    }
  }

  #take(content: Readonly<Record<string, unknown>>, data: DataView | undefined): void {
    if (this.readyState !== 1) return;
    this.#number += 1;
    if (content["number"] !== this.#number || data === undefined) {
      this.#say({ kind: "close" });
      this.#lose(GONE, LEFT_OUT);
      return;
    }
    this.#acksHeard = Number(content["heard"]);
    const bytes = new Uint8Array(data.buffer as ArrayBuffer, data.byteOffset, data.byteLength);
    this.onmessage?.(new MessageEvent("message", { data: bytes }));
    if (this.readyState !== 1) return;
    if (content["what"] === "frame") {
      this.#frames += 1;
      this.#draw();
      if (this.#ackDue) this.#acknowledge();
    } else {
      if (content["what"] === "state") this.#states += 1;
      this.#acknowledge();
    }
  }

  #draw(): void {
    if (this.#drawing) return;
    this.#drawing = true;
    this.around.onNextFrame(() => {
      this.#drawing = false;
      this.#drawn = this.#frames;
      if (this.readyState === 1) this.#acknowledge();
    });
  }

  #acknowledge(): void {
    const now = this.around.now();
    this.#ackDue = this.#acks - this.#acksHeard >= ACKS_UNDER_WAY && now - this.#ackedAt < ACK_AGAIN_MS;
    if (this.#ackDue) return;
    this.#ackedAt = now;
    this.#acks += 1;
    this.#say({ kind: "ack", number: this.#acks, frames: this.#drawn, states: this.#states });
  }

  #look(): void {
    const now = this.around.now();
    if (this.readyState === 0 ? now - this.#began > OPEN_LIMIT_MS : now - this.#heardAt > SILENCE_MS) {
      this.#say({ kind: "close" });
      this.#lose(GONE, NO_ANSWER);
    } else if (this.readyState === 0) {
      // What was said first may wait for the end of a cell, where the notebook had no subshell for it yet.
      this.#say({ kind: "open" });
    }
  }

  #say(content: Readonly<Record<string, unknown>>, buffers: ArrayBuffer[] = []): void {
    try {
      this.comm.send({ ...content, viewer: this.viewer }, undefined, buffers);
    } catch (error) {
      console.warn(error); // the comm is gone, which the silence will tell
    }
  }

  #lose(code: number, reason: string): void {
    if (this.readyState === 3) return;
    this.#end();
    this.onclose?.(Object.assign(new Event("close"), { code, reason }) as CloseEvent);
  }

  #end(): void {
    this.readyState = 3;
    clearInterval(this.#looking);
    this.comm.off("msg:custom", this.#listener);
  }
}
