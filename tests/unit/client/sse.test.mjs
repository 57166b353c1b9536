import assert from "node:assert/strict";
import { test } from "node:test";

import { MAX_FRAME_CHARACTERS, SseParser } from "../../../src/tailrace/ui/sse.js";

const bytes = (text) => new TextEncoder().encode(text);

test("a stream gives the same frames wherever it is cut", () => {
  const stream = bytes(
    "\uFEFFretry: 2500\r\n\r\n: a comment\r\n\r\nid: s:1\r\nevent: delta\r\ndata: {\"delta\":\"Grüße 🌊\"}\r\n\r\n" +
      "data: one\rdata:two\r\rdata\n\nid: s:2\nevent: finish\ndata: {}\n\n",
  );
  const whole = new SseParser().feed(stream);
  assert.deepEqual(whole, [
    { event: "delta", data: '{"delta":"Grüße 🌊"}', id: "s:1" },
    { event: "message", data: "one\ntwo", id: null },
    { event: "message", data: "", id: null },
    { event: "finish", data: "{}", id: "s:2" },
  ]);
  for (let at = 1; at < stream.length; at += 1) {
    const parser = new SseParser();
    assert.deepEqual([...parser.feed(stream.subarray(0, at)), ...parser.feed(stream.subarray(at))], whole, `cut at ${at}`);
    assert.equal(parser.retry, 2500);
  }
  const parser = new SseParser();
  assert.deepEqual([...stream].flatMap((byte) => parser.feed(Uint8Array.of(byte))), whole);
});

test("a line separator of Unicode is text", () => {
  assert.equal(new SseParser().feed(bytes("data: a\u2028b\u0085c\n\n"))[0].data, "a\u2028b\u0085c");
});

test("an unfinished frame is not dispatched, and an id with NUL is no id", () => {
  const parser = new SseParser();
  assert.deepEqual(parser.feed(bytes("id: a\0b\ndata: x\n")), []);
  assert.deepEqual(parser.feed(bytes("\n")), [{ event: "message", data: "x", id: null }]);
});

test("a frame without end is refused, many frames are not", () => {
  const parser = new SseParser();
  const piece = bytes(`data: ${"x".repeat(1_000_000)}\n\n`);
  for (let n = 0; n < 6; n += 1) assert.equal(parser.feed(piece).length, 1);
  const endless = bytes("x".repeat(MAX_FRAME_CHARACTERS / 2 + 1));
  parser.feed(endless);
  assert.throws(() => parser.feed(endless), RangeError);
});
