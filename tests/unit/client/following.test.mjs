/** The browser's client against a real HTTP server that behaves as a script says. */

import assert from "node:assert/strict";
import { createServer } from "node:http";
import { test } from "node:test";

import { Tailrace, TailraceError } from "../../../src/tailrace/ui/tailrace.js";

const event = (seq, name = "delta") => `id: s:${seq}\nevent: ${name}\ndata: {"seq":${seq}}\n\n`;
const control = (name) => `event: ${name}\ndata: {}\n\n`;
const RETRY = "retry: 20\n\n";

/** Runs `work(tailrace, requests)`; the nth request is answered by the nth of `answers`. */
async function served(answers, work) {
  const requests = [];
  const server = createServer((request, response) => {
    const answer = answers[requests.length];
    requests.push({ path: request.url, last: request.headers["last-event-id"] ?? null, auth: request.headers.authorization });
    if (!answer) return response.writeHead(500).end();
    if (answer.status) return response.writeHead(answer.status, answer.headers).end(answer.body);
    response.writeHead(200, { "Content-Type": "text/event-stream" });
    response.write(answer.text);
    return answer.cut ? setImmediate(() => response.destroy()) : response.end();
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  try {
    const base = `http://127.0.0.1:${server.address().port}`;
    await work(new Tailrace({ base, token: async () => "secret" }), requests);
  } finally {
    server.closeAllConnections();
    server.close();
  }
}

async function followed(tailrace, options = {}) {
  const seen = [];
  await tailrace.follow("s", { ...options, onFrame: ({ event, seq }) => seen.push(seq ?? event) });
  return seen;
}

test("a cut stream goes on after the last event, and nothing comes twice", () =>
  served(
    [
      { text: RETRY + event(1) + event(2) + "id: s:3\nevent: del", cut: true },
      { status: 503 },
      { text: RETRY + event(2) + event(3) + event(4, "finish") },
    ],
    async (tailrace, requests) => {
      assert.deepEqual(await followed(tailrace), [1, 2, 3, 4]);
      assert.deepEqual(requests.map(({ last }) => last), [null, "s:2", "s:2"]);
      assert.equal(requests[0].auth, "Bearer secret");
    },
  ));

test("an event that is missing is asked for", () =>
  served([{ text: RETRY + event(1) + event(3) }, { text: event(2) + event(3) + event(4, "finish") }], async (tailrace, requests) => {
    assert.deepEqual(await followed(tailrace), [1, 2, 3, 4]);
    assert.equal(requests[1].last, "s:1");
  }));

test("a log with a hole ends in an error and not in a loop", () => {
  const broken = { text: RETRY + event(3) };
  return served([{ text: RETRY + event(1) }, broken, broken, broken, broken], async (tailrace) => {
    await assert.rejects(followed(tailrace), /after event 1 comes event 3/);
  });
});

test("204 ends it", () =>
  served([{ status: 204 }], async (tailrace) => assert.deepEqual(await followed(tailrace, { lastEventId: "s:9" }), [])));

test("a reset forgets the place and takes what follows", () =>
  served([{ text: RETRY + control("stream.reset") + event(1) + event(2, "finish") }], async (tailrace, requests) => {
    assert.deepEqual(await followed(tailrace, { lastEventId: "other:9" }), ["stream.reset", 1, 2]);
    assert.equal(requests[0].last, "other:9");
  }));

test("a rotated stream and a session's stream are opened again", () =>
  served(
    [{ text: RETRY + event(1, "finish") }, { text: control("stream.rotate") }, { status: 401, body: '{"detail":"Expired."}' }],
    async (tailrace, requests) => {
      await assert.rejects(followed(tailrace, { follow: "session" }), (error) => {
        assert.ok(error instanceof TailraceError);
        assert.deepEqual([error.status, error.message], [401, "Expired."]);
        return true;
      });
      assert.equal(requests.length, 3);
      assert.match(requests[0].path, /follow=session/);
    },
  ));

test("an abort ends it in peace", () =>
  served([{ text: RETRY + event(1), cut: true }], async (tailrace) => {
    const stop = new AbortController();
    await tailrace.follow("s", { follow: "session", signal: stop.signal, onFrame: () => stop.abort() });
  }));
