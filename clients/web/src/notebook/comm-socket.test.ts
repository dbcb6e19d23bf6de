import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import { SocketSession } from "../session/socket.ts";
import { decodeMessage, encodeMessage } from "../session/wire.ts";
import { ACK_AGAIN_MS, ACKS_UNDER_WAY, CommSocket, LEFT_OUT, NO_ANSWER } from "./comm-socket.ts";
import type { Comm } from "./model.ts";

type Listener = (content: unknown, buffers: readonly DataView[]) => void;

/** A comm whose other end is the test. */
class FakeComm implements Comm {
  readonly sent: { content: Record<string, unknown>; buffers: readonly ArrayBuffer[] }[] = [];
  readonly listeners = new Set<Listener>();
  broken = false;
  number = 0;

  send(content: unknown, _: unknown, buffers: ArrayBuffer[] = []): void {
    if (this.broken) throw new Error("the comm is closed");
    this.sent.push({ content: content as Record<string, unknown>, buffers });
  }
  on(_: "msg:custom", listener: Listener): void {
    this.listeners.add(listener);
  }
  off(_: "msg:custom", listener: Listener): void {
    this.listeners.delete(listener);
  }

  say(content: Record<string, unknown>, viewer = "me"): void {
    for (const listener of this.listeners) listener({ viewer, ...content }, []);
  }
  /** A numbered message, whose bytes lie anywhere in what came. */
  tell(what: string, items: Record<string, unknown>, viewer = "me", heard = this.acks().length): void {
    this.number += 1;
    const bytes = encodeMessage(items);
    const around = new Uint8Array(bytes.length + 9);
    around.set(bytes, 5);
    for (const listener of this.listeners) listener({ viewer, kind: "message", what, number: this.number, heard }, [new DataView(around.buffer, 5, bytes.length)]);
  }
  kinds(): unknown[] {
    return this.sent.map(({ content }) => content["kind"]);
  }
  acks(): Record<string, unknown>[] {
    return this.sent.flatMap(({ content }) => (content["kind"] === "ack" ? [content] : []));
  }
}

let comm: FakeComm;
let frames: (() => void)[];
const around = { now: () => Date.now(), onNextFrame: (run: () => void) => void frames.push(run) };
const draw = () => {
  for (const run of frames.splice(0)) run();
};

beforeEach(() => {
  vi.useFakeTimers();
  comm = new FakeComm();
  frames = [];
});

afterEach(() => {
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function opened(): { socket: CommSocket; heard: unknown[]; ended: { code: number; reason: string }[] } {
  const socket = new CommSocket(comm, "me", around);
  const heard: unknown[] = [];
  const ended: { code: number; reason: string }[] = [];
  socket.onmessage = (event) => heard.push(decodeMessage(event.data as Uint8Array));
  socket.onclose = ({ code, reason }) => ended.push({ code, reason });
  comm.say({ kind: "opened" });
  return { socket, heard, ended };
}

describe("a socket over a comm", () => {
  test("opens when the kernel says so, and hands on what is for it", () => {
    const socket = new CommSocket(comm, "me", around);
    const open = vi.fn();
    socket.onopen = open;
    expect(comm.sent.map(({ content }) => content)).toEqual([{ kind: "open", viewer: "me" }]);
    comm.say({ kind: "opened" }, "another");
    expect(open).not.toHaveBeenCalled();
    comm.say({ kind: "opened" });
    expect(open).toHaveBeenCalledOnce();
    expect(socket.readyState).toBe(1);
    const heard = vi.fn();
    socket.onmessage = heard;
    comm.tell("state", { state: { updates: { a: 1 } } }, "another");
    comm.number = 0;
    comm.tell("state", { state: { updates: { a: 1 } } });
    expect(heard).toHaveBeenCalledOnce();
    expect(decodeMessage((heard.mock.calls[0]![0] as MessageEvent).data as Uint8Array).state?.updates).toEqual({ a: 1 });
  });

  test("acknowledges a frame when it is drawn, and all else at once", () => {
    opened();
    comm.tell("frame", { frame: {} });
    comm.tell("frame", { frame: {} });
    expect(comm.acks()).toEqual([]);
    comm.tell("state", { state: {} });
    expect(comm.acks().at(-1)).toMatchObject({ frames: 0, states: 1 });
    draw();
    expect(comm.acks().at(-1)).toMatchObject({ frames: 2, states: 1 });
    expect(comm.acks()).toHaveLength(2);
    comm.tell("nothing", {});
    expect(comm.acks()).toHaveLength(3);
  });

  test("sends a kernel that hears nothing so many acknowledgements, then one a minute, and the newest once it hears", () => {
    const { ended } = opened();
    for (let frame = 0; frame < 100; frame += 1) {
      comm.tell("frame", { frame: {} }, "me", 0);
      draw();
    }
    expect(comm.acks().map(({ number }) => number)).toEqual(Array.from({ length: ACKS_UNDER_WAY }, (_, at) => at + 1));
    for (let second = 0; second < 120; second += 1) {
      vi.advanceTimersByTime(1000);
      comm.tell("frame", { frame: {} }, "me", 0);
      draw();
    }
    expect(comm.acks()).toHaveLength(ACKS_UNDER_WAY + (2 * 60_000) / ACK_AGAIN_MS);
    comm.tell("nothing", {}, "me", ACKS_UNDER_WAY);
    expect(comm.acks().at(-1)).toMatchObject({ number: ACKS_UNDER_WAY + 3, frames: 220 });
    expect(ended).toEqual([]);
  });

  test("ends, to be tried again, where the notebook has left something out", () => {
    const { ended, heard } = opened();
    comm.tell("state", { state: {} });
    comm.number += 1;
    comm.tell("frame", { frame: {} });
    expect(heard).toHaveLength(1);
    expect(ended).toEqual([{ code: 1006, reason: LEFT_OUT }]);
    expect(comm.kinds().at(-1)).toBe("close");
    expect(comm.listeners.size).toBe(0);
  });

  test("ends where no kernel answers, or answers any more", () => {
    const silent = new CommSocket(comm, "me", around);
    const reasons: string[] = [];
    silent.onclose = ({ reason }) => reasons.push(reason);
    vi.advanceTimersByTime(15_000);
    expect(reasons).toEqual([NO_ANSWER]);
    const { ended } = opened();
    for (let second = 0; second < 60; second += 5) {
      comm.number = second / 5;
      comm.tell("nothing", {});
      vi.advanceTimersByTime(5000);
    }
    expect(ended).toEqual([]);
    vi.advanceTimersByTime(25_000);
    expect(ended).toEqual([{ code: 1006, reason: NO_ANSWER }]);
    expect(vi.getTimerCount()).toBe(0);
  });

  test("asks again as long as it is not let in", () => {
    const socket = new CommSocket(comm, "me", around);
    vi.advanceTimersByTime(5000);
    const asked = comm.sent.length;
    expect(asked).toBeGreaterThan(1);
    expect(new Set(comm.sent.map(({ content }) => JSON.stringify(content)))).toEqual(new Set([JSON.stringify({ kind: "open", viewer: "me" })]));
    comm.say({ kind: "opened" });
    vi.advanceTimersByTime(5000);
    expect(comm.sent).toHaveLength(asked);
    socket.close();
  });

  test("passes on why the kernel has closed it", () => {
    const { ended, socket } = opened();
    comm.say({ kind: "closed", code: 1008, reason: "the notebook has left the session" });
    expect(ended).toEqual([{ code: 1008, reason: "the notebook has left the session" }]);
    socket.close();
    expect(comm.kinds()).not.toContain("close");
    expect(vi.getTimerCount()).toBe(0);
  });

  test("says when it is closed here, and survives a comm that is gone", () => {
    const { socket, ended } = opened();
    comm.broken = true;
    const warn = vi.spyOn(console, "warn").mockImplementation(() => undefined);
    socket.send(encodeMessage({ state: {} }));
    socket.close();
    expect(warn).toHaveBeenCalledTimes(2);
    expect(ended).toEqual([]);
    expect(comm.listeners.size).toBe(0);
  });

  test("carries writes that are merged while others are under way", () => {
    vi.stubGlobal("WebSocket", { OPEN: 1 });
    let socket: CommSocket | null = null;
    const place = { protocol: "http:", host: "x", hostname: "x", pathname: "/", search: "" };
    const session = new SocketSession("p1", { place, open: () => (socket = new CommSocket(comm, "me", around)), random: () => 1, ...around });
    session.connect({ name: "Ada", color: "#ff0000", code: "" });
    comm.say({ kind: "opened" });
    comm.tell("state", { state: { updates: {}, removals: [] } });
    expect(session.status.kind).toBe("open");
    for (let at = 0; at < 50; at += 1) {
      session.write({ handle: at });
      vi.advanceTimersByTime(34);
    }
    expect(socket!.full).toBe(true);
    const writes = () => comm.sent.flatMap(({ buffers }) => buffers.map((each) => decodeMessage(each).state?.updates["handle"])).filter((each) => each !== undefined);
    expect(writes().length).toBeLessThanOrEqual(4);
    comm.say({ kind: "written" });
    vi.advanceTimersByTime(34);
    expect(writes().at(-1)).toBe(49);
    session.close();
  });
});
