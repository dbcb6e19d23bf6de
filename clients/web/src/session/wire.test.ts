import { Encoder } from "@msgpack/msgpack";
import { describe, expect, test } from "vitest";
import { decodeMessage, encodeMessage, floats, indices } from "./wire.ts";

function buffer(items: unknown): ArrayBuffer {
  return new Encoder().encode(items).slice().buffer;
}

function bytesOf(array: Float32Array | Uint32Array): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

describe("messages", () => {
  test("have frame, state and commands, each of which may be missing", () => {
    const message = decodeMessage(buffer({ frame: { "frame.index": 3 }, state: { updates: { a: 1 } } }));
    expect(message.frame).toEqual({ "frame.index": 3 });
    expect(message.state).toEqual({ updates: { a: 1 }, removals: [] });
    expect(message.commands).toEqual([]);
    expect(decodeMessage(buffer({})).state).toBeNull();
  });

  test("have one command, or a list", () => {
    expect(decodeMessage(buffer({ command: { response: null } })).commands).toEqual([{ response: null }]);
    expect(decodeMessage(buffer({ command: [{ a: 1 }, 5, { b: 2 }] })).commands).toEqual([{ a: 1 }, { b: 2 }]);
  });

  test("that are none are refused", () => {
    expect(() => decodeMessage(buffer([1, 2]))).toThrow();
    expect(() => decodeMessage(new Uint8Array([0x81, 0xa1]).buffer)).toThrow();
    expect(() => decodeMessage(buffer({ __proto__x: 1 }))).not.toThrow();
  });

  test("with parts of other kinds come without them", () => {
    expect(decodeMessage(buffer({ frame: 5, state: "x", command: 7 }))).toEqual({ frame: null, state: null, commands: [] });
    expect(decodeMessage(buffer({ state: { updates: [1], removals: "a" } })).state).toEqual({ updates: {}, removals: [] });
  });

  test("go out as they come in", () => {
    const sent = { state: { updates: { "avatar.a": { name: "Ada", position: [1, 2.5, 3] } }, removals: ["b"] } };
    expect(decodeMessage(encodeMessage(sent).slice().buffer).state).toEqual(sent.state);
  });
});

describe("arrays", () => {
  test.each([0, 1, 2, 3])("are right whatever their place in a message (%i bytes in)", (shift) => {
    const numbers = new Float32Array([1.5, -2, 3e-8]);
    const whole = new Uint8Array(shift + numbers.byteLength);
    whole.set(bytesOf(numbers), shift);
    expect(Array.from(floats(whole.subarray(shift)))).toEqual(Array.from(numbers));
    expect(floats(whole.subarray(shift)).buffer === whole.buffer).toBe(shift === 0);
  });

  test("of indices, and lists of numbers", () => {
    expect(Array.from(indices(bytesOf(new Uint32Array([7, 4_000_000_000]))))).toEqual([7, 4_000_000_000]);
    expect(Array.from(indices([1, 2]))).toEqual([1, 2]);
    expect(Array.from(floats([0.5]))).toEqual([0.5]);
  });

  test("that are none are empty, and bytes too many are left out", () => {
    expect(floats(undefined)).toHaveLength(0);
    expect(floats("abc")).toHaveLength(0);
    expect(floats(new Uint8Array(7))).toHaveLength(1);
  });
});
