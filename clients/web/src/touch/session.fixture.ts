import type { AvatarComponent, ConnectionStatus, Frame, Session } from "../contracts.ts";

/** A session for tests, which takes what is written to it at once unless told otherwise. */
export class FakeSession implements Session {
  status: ConnectionStatus = { kind: "open" };
  frame: Frame | null = null;
  readonly state = new Map<string, unknown>();
  readonly playerId = "me";
  readonly name = "Ada";
  readonly color = "#ff8800";
  watching = false;
  readonly roundTripMs = null;
  /** Whether writes get into the state. */
  takes = true;
  readonly writes: { updates: Record<string, unknown>; removals: readonly string[] }[] = [];
  avatar: readonly AvatarComponent[] = [];
  private readonly listeners: { event: string; listener: () => void }[] = [];

  connect(): void {}
  close(): void {}

  write(updates: Record<string, unknown>, removals: readonly string[] = []): void {
    this.writes.push({ updates, removals });
    if (!this.takes) return;
    for (const [key, value] of Object.entries(updates)) this.state.set(key, value);
    for (const key of removals) this.state.delete(key);
  }

  setAvatar(components: readonly AvatarComponent[]): void {
    this.avatar = components;
  }

  run(): Promise<Record<string, unknown>> {
    return Promise.resolve({});
  }

  on(event: string, listener: () => void): () => void {
    const entry = { event, listener };
    this.listeners.push(entry);
    return () => void this.listeners.splice(this.listeners.indexOf(entry), 1);
  }

  emit(event: "frame" | "state" | "status"): void {
    for (const entry of [...this.listeners]) if (entry.event === event) entry.listener();
  }
}
