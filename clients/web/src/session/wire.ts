/** The MessagePack messages of the session's server, and typed arrays over the memory they came in. */

import { Decoder, Encoder } from "@msgpack/msgpack";

export interface Message {
  readonly frame: Readonly<Record<string, unknown>> | null;
  readonly state: { readonly updates: Readonly<Record<string, unknown>>; readonly removals: readonly string[] } | null;
  readonly commands: readonly Readonly<Record<string, unknown>>[];
}

const decoder = new Decoder();
const encoder = new Encoder({ ignoreUndefined: true });

/** What a message holds; throws where it is none. Byte arrays in it are views of `data`. */
export function decodeMessage(data: ArrayBuffer | Uint8Array): Message {
  const whole = decoder.decode(data);
  if (!isMap(whole)) throw new Error("the message is no map");
  const { frame, state, command } = whole;
  return {
    frame: isMap(frame) ? frame : null,
    state: isMap(state) ? { updates: isMap(state["updates"]) ? state["updates"] : {}, removals: texts(state["removals"]) } : null,
    commands: (Array.isArray(command) ? command : [command]).filter(isMap),
  };
}

export function encodeMessage(items: Readonly<Record<string, unknown>>): Uint8Array<ArrayBuffer> {
  return encoder.encode(items);
}

export function isMap(item: unknown): item is Record<string, unknown> {
  return typeof item === "object" && item !== null && !Array.isArray(item) && !ArrayBuffer.isView(item);
}

/** The texts in a list; empty where it is none. */
export function texts(item: unknown): readonly string[] {
  if (!Array.isArray(item)) return [];
  return item.every((each) => typeof each === "string") ? item : item.map((each) => String(each));
}

/** Little-endian float32 in bytes, or a list of numbers, as an array; copied only where the bytes are not aligned. */
export function floats(item: unknown): Float32Array {
  if (item instanceof Uint8Array) return new Float32Array(aligned(item), offset(item), item.byteLength >> 2);
  return Array.isArray(item) ? Float32Array.from(item, Number) : new Float32Array();
}

/** Little-endian uint32 in bytes, or a list of numbers, as an array; copied only where the bytes are not aligned. */
export function indices(item: unknown): Uint32Array {
  if (item instanceof Uint8Array) return new Uint32Array(aligned(item), offset(item), item.byteLength >> 2);
  return Array.isArray(item) ? Uint32Array.from(item, Number) : new Uint32Array();
}

export function bytes(item: unknown): Uint8Array {
  if (item instanceof Uint8Array) return item;
  return Array.isArray(item) ? Uint8Array.from(item, Number) : new Uint8Array();
}

function aligned(item: Uint8Array): ArrayBufferLike {
  return item.byteOffset % 4 === 0 ? item.buffer : item.slice().buffer;
}

function offset(item: Uint8Array): number {
  return item.byteOffset % 4 === 0 ? item.byteOffset : 0;
}
