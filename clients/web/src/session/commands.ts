/** Commands that were asked for, until they are answered. */

import { isMap } from "./wire.ts";

interface Call {
  readonly name: string;
  readonly resolve: (result: Record<string, unknown>) => void;
  readonly reject: (reason: Error) => void;
  readonly deadline: number;
}

export interface CommandRequest {
  readonly request: { readonly name: string; readonly arguments: Record<string, unknown>; readonly id: number };
}

export class CommandCalls {
  #calls = new Map<number, Call>();
  #lastId = 0;

  constructor(readonly limitMs: number) {}

  /** The message that asks for it, and what its answer will settle. */
  ask(name: string, args: Record<string, unknown>, now: number): { message: CommandRequest; answer: Promise<Record<string, unknown>> } {
    this.#lastId += 1;
    const id = this.#lastId;
    const answer = new Promise<Record<string, unknown>>((resolve, reject) => {
      this.#calls.set(id, { name, resolve, reject, deadline: now + this.limitMs });
    });
    return { message: { request: { name, arguments: args, id } }, answer };
  }

  /** Settles the command that this answers; what answers none of ours is passed over. */
  answered(said: Readonly<Record<string, unknown>>): void {
    const request = said["request"];
    if (!isMap(request) || !("response" in said || "exception" in said)) return;
    const call = this.#take(request["id"]);
    if (call === undefined) return;
    if (said["exception"] !== undefined && said["exception"] !== null) call.reject(new Error(String(said["exception"])));
    else call.resolve(isMap(said["response"]) ? said["response"] : {});
  }

  /** Those that have waited too long fail. */
  expire(now: number): void {
    for (const [id, call] of this.#calls) {
      if (now < call.deadline) continue;
      this.#take(id)?.reject(new Error(`“${call.name}” was not answered in ${Math.round(this.limitMs / 1000)} s.`));
    }
  }

  failAll(reason: string): void {
    for (const id of [...this.#calls.keys()]) this.#take(id)?.reject(new Error(reason));
  }

  #take(id: unknown): Call | undefined {
    if (typeof id !== "number") return undefined;
    const call = this.#calls.get(id);
    this.#calls.delete(id);
    return call;
  }
}
