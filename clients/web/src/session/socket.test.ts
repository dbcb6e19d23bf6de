import { afterEach, beforeEach, describe, expect, test, vi } from "vitest";
import type { Place } from "./address.ts";
import { SocketSession } from "./socket.ts";
import { decodeMessage, encodeMessage } from "./wire.ts";

/** A WebSocket whose other end is the test. */
class FakeSocket {
  static readonly OPEN = 1;
  readonly sent: Record<string, unknown>[] = [];
  readyState = 1;
  bufferedAmount = 0;
  binaryType = "";
  closed = false;
  onopen: (() => void) | null = null;
  onmessage: ((event: { data: ArrayBuffer }) => void) | null = null;
  onclose: ((event: { code: number; reason: string }) => void) | null = null;

  constructor(readonly url: string) {}

  send(data: Uint8Array): void {
    const message = decodeMessage(data.slice().buffer);
    this.sent.push({ ...(message.state ? { state: message.state } : {}), ...(message.commands.length > 0 ? { command: message.commands[0] } : {}) });
  }

  close(): void {
    this.closed = true;
  }

  say(items: Record<string, unknown>): void {
    this.onmessage?.({ data: encodeMessage(items).slice().buffer });
  }

  hangUp(code: number, reason = ""): void {
    this.onclose?.({ code, reason });
  }

  states(): { updates: Record<string, unknown>; removals: string[] }[] {
    return this.sent.flatMap((message) => ("state" in message ? [message["state"] as { updates: Record<string, unknown>; removals: string[] }] : []));
  }
}

const PLACE: Place = { protocol: "http:", host: "lab:38801", hostname: "lab", pathname: "/", search: "" };
const ADA = { name: "Ada", color: "#ff0000", code: "7KQM-2XRD" };

let sockets: FakeSocket[];
let session: SocketSession;

beforeEach(() => {
  vi.useFakeTimers();
  vi.stubGlobal("WebSocket", FakeSocket);
  sockets = [];
  session = new SocketSession("p1", {
    place: PLACE,
    open: (url) => {
      sockets.push(new FakeSocket(url));
      return sockets.at(-1) as unknown as WebSocket;
    },
    now: () => Date.now(),
    random: () => 1,
    onNextFrame: (run) => void setTimeout(run, 16),
  });
});

afterEach(() => {
  session.close();
  vi.useRealTimers();
  vi.unstubAllGlobals();
});

function enter(): FakeSocket {
  session.connect(ADA);
  const socket = sockets.at(-1)!;
  socket.onopen?.();
  socket.say({ state: { updates: { scene: 1 }, removals: [] } });
  return socket;
}

describe("a session", () => {
  test("is open once the server has said something", () => {
    session.connect(ADA);
    sockets[0]!.onopen?.();
    expect(session.status).toEqual({ kind: "connecting", attempt: 0 });
    expect(sockets[0]!.url).toBe("ws://lab:38801/?name=Ada&code=7KQM-2XRD");
    sockets[0]!.say({ state: { updates: { scene: 1 }, removals: [] } });
    expect(session.status.kind).toBe("open");
    expect(session.state.get("scene")).toBe(1);
  });

  test("is open also where the server has nothing to say", () => {
    session.connect(ADA);
    sockets[0]!.onopen?.();
    vi.advanceTimersByTime(6000);
    expect(session.status.kind).toBe("open");
  });

  test("tells who we are at once, and keeps listeners informed", () => {
    const [frames, states] = [vi.fn(), vi.fn()];
    session.on("frame", frames);
    const leave = session.on("state", states);
    const socket = enter();
    vi.advanceTimersByTime(20);
    expect(socket.states()[0]!.updates["avatar.p1"]).toMatchObject({ playerid: "p1", name: "Ada", color: [1, 0, 0, 1] });
    socket.say({ frame: { "frame.index": 0 } });
    expect(frames).toHaveBeenCalledTimes(1);
    leave();
    socket.say({ state: { updates: { x: 1 }, removals: [] } });
    expect(states).toHaveBeenCalledTimes(1);
  });

  test("merges writes of one animation frame, and sends them without one, too", () => {
    const socket = enter();
    vi.advanceTimersByTime(20);
    const before = socket.states().length;
    session.write({ a: 1 });
    session.write({ a: 2, b: 3 }, ["c"]);
    expect(socket.states()).toHaveLength(before);
    vi.advanceTimersByTime(16);
    expect(socket.states().slice(before)).toEqual([{ updates: { a: 2, b: 3 }, removals: ["c"] }]);
    vi.advanceTimersByTime(100);
    expect(socket.states()).toHaveLength(before + 1);
  });

  test("drops updates that cannot go out, and keeps removals", () => {
    const socket = enter();
    vi.advanceTimersByTime(100);
    const before = socket.states().length;
    socket.bufferedAmount = 2 << 20;
    session.write({ "interaction.1": {} }, ["interaction.2"]);
    vi.advanceTimersByTime(40);
    expect(socket.states().slice(before)).toEqual([{ updates: {}, removals: ["interaction.2"] }]);
  });

  test("runs commands, and says why one failed", async () => {
    const socket = enter();
    const [list, load] = [session.run("playback/list"), session.run("playback/load", { index: 9 })];
    const requests = socket.sent.flatMap((message) => ("command" in message ? [(message["command"] as { request: Record<string, unknown> }).request] : []));
    socket.say({ command: { request: requests[0], response: { simulations: ["a"] } } });
    socket.say({ command: [{ request: requests[1], exception: "index is 9: there is 1" }] });
    expect(await list).toEqual({ simulations: ["a"] });
    await expect(load).rejects.toThrow("Index is 9: there is 1.");
  });

  test("measures the way there and back", () => {
    const socket = enter();
    vi.advanceTimersByTime(300);
    const probe = socket.states().findLast((state) => "update.index.p1" in state.updates)!;
    vi.advanceTimersByTime(7);
    socket.say({ state: { updates: { "update.index.p1": probe.updates["update.index.p1"] }, removals: [] } });
    expect(session.roundTripMs).toBeGreaterThanOrEqual(7);
    expect(session.roundTripMs).toBeLessThan(400);
  });

  test("knows that it may only watch", () => {
    const socket = enter();
    for (let refusal = 0; refusal < 2; refusal += 1) {
      socket.say({ state: { updates: {}, removals: ["avatar.p1"] } });
      vi.advanceTimersByTime(2500);
    }
    expect(session.watching).toBe(true);
    socket.say({ state: { updates: { "avatar.p1": {} }, removals: [] } });
    expect(session.watching).toBe(false);
  });
});

describe("a connection", () => {
  test("that is lost is made anew, as the same player", () => {
    enter();
    sockets[0]!.hangUp(1006);
    expect(session.status).toEqual({ kind: "lost", reason: "The connection to the server was lost.", retryInMs: 500 });
    vi.advanceTimersByTime(500);
    expect(session.status).toEqual({ kind: "connecting", attempt: 1 });
    sockets[1]!.hangUp(1006);
    expect(session.status).toMatchObject({ kind: "lost", retryInMs: 1000 });
    vi.advanceTimersByTime(1000);
    sockets[2]!.say({ state: { updates: { other: 1 }, removals: [] } });
    expect(session.status.kind).toBe("open");
    expect([...session.state.keys()]).toEqual(["other"]);
    vi.advanceTimersByTime(20);
    expect(sockets[2]!.states()[0]!.updates).toHaveProperty("avatar.p1");
  });

  test("that was refused is not tried again", () => {
    session.connect(ADA);
    sockets[0]!.hangUp(1008, "join_code is wrong; ask a host of the session for it");
    expect(session.status).toMatchObject({ kind: "ended", reason: expect.stringContaining("code is not right") });
    vi.advanceTimersByTime(60_000);
    expect(sockets).toHaveLength(1);
  });

  test("that is refused for now is tried again by whoever was in", () => {
    enter();
    sockets[0]!.hangUp(1006);
    vi.advanceTimersByTime(500);
    sockets[1]!.hangUp(1013, "the session 'default' is full with 2 users; try again later");
    expect(session.status).toMatchObject({ kind: "lost", reason: "The session is full: 2 people are in it. Try again later." });
    session.connect(ADA);
    sockets.at(-1)!.hangUp(1013, "the session 'default' is full with 2 users; try again later");
    expect(session.status.kind).toBe("ended");
  });

  test("to a session with a password gives it", () => {
    session.connect(ADA);
    sockets[0]!.hangUp(1008, "password is missing: the session 'x' asks for one instead of a join code");
    expect(sockets[1]!.url).toContain("password=7KQM-2XRD");
    sockets[1]!.hangUp(1008, "password is wrong; ask a host of the session for it");
    expect(session.status.kind).toBe("ended");
  });

  test("on which nothing comes, not even an answer, is given up", () => {
    const socket = enter();
    vi.advanceTimersByTime(7000);
    expect(socket.sent.some((message) => "command" in message)).toBe(true);
    vi.advanceTimersByTime(13_400);
    expect(session.status).toMatchObject({ kind: "lost", reason: "The server has stopped answering." });
    expect(socket.closed).toBe(true);
  });

  test("is not given up for having slept", () => {
    enter();
    vi.setSystemTime(Date.now() + 60_000);
    vi.advanceTimersByTime(300);
    expect(session.status.kind).toBe("open");
    vi.advanceTimersByTime(20_400);
    expect(session.status.kind).toBe("lost");
  });

  test("that sends rubbish is given up", () => {
    const noted = vi.spyOn(console, "error").mockImplementation(() => undefined);
    const socket = enter();
    socket.onmessage?.({ data: new Uint8Array([0xc1]).buffer });
    expect(session.status).toMatchObject({ kind: "lost", reason: expect.stringContaining("cannot read") });
    noted.mockRestore();
  });

  test("that ends fails the commands that wait on it, and those that come after", async () => {
    const socket = enter();
    const waiting = session.run("playback/list");
    socket.hangUp(1001, "the gateway is stopping; connect again in a moment");
    await expect(waiting).rejects.toThrow("The connection to the session was lost.");
    await expect(session.run("playback/list")).rejects.toThrow("no connection");
  });
});
