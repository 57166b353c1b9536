/** The browser's client against a real HTTP server that behaves as a script says. */

import assert from "node:assert/strict";
import { createHash } from "node:crypto";
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
    if (answer.held) return undefined; // the stream goes on, in silence
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

test("a stream too many is asked for again when the server says, and not before", () => {
  const limited = { status: 429, headers: { "Retry-After": "1" }, body: '{"detail":"At most 200 streams."}' };
  const began = performance.now();
  return served([limited, limited, { text: RETRY + event(1, "finish") }], async (tailrace, requests) => {
    assert.deepEqual(await followed(tailrace), [1]);
    assert.equal(requests.length, 3);
    assert.ok(performance.now() - began >= 1_990); // timers may be a little early
  });
});

test("a run too many is left to the caller, with the time to wait", () =>
  served([{ status: 429, headers: { "Retry-After": "7" }, body: '{"detail":"At most 20 runs."}' }], async (tailrace) => {
    await assert.rejects(tailrace.generate("s", { prompt: "Hello" }), (error) => {
      assert.deepEqual([error.status, error.message, error.retryAfterMs, error.passing], [429, "At most 20 runs.", 7_000, true]);
      return true;
    });
  }));

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

test("a token that expired in mid-stream is asked for again", () =>
  served([{ text: RETRY + event(1) + control("stream.expired") }, { text: event(2, "finish") }], async (tailrace, requests) => {
    tailrace.token = () => `token-${requests.length}`;
    assert.deepEqual(await followed(tailrace), [1, "stream.expired", 2]);
    assert.deepEqual(requests.map(({ auth, last }) => [auth, last]), [["Bearer token-0", null], ["Bearer token-1", "s:1"]]);
  }));

test("a session that was lost in mid-stream is not found", () =>
  served([{ text: RETRY + event(1) + control("stream.expired") }, { status: 404, body: "{}" }], async (tailrace) => {
    await assert.rejects(followed(tailrace, { follow: "session" }), (error) => error.status === 404);
  }));

test("an abort ends it in peace", () =>
  served([{ text: RETRY + event(1), cut: true }], async (tailrace) => {
    const stop = new AbortController();
    await tailrace.follow("s", { follow: "session", signal: stop.signal, onFrame: () => stop.abort() });
  }));

/** A run of `session` s with its events at `seqs`, its `finish` last; `change` alters the text of one frame. */
function run(runId, seqs, change = (text) => text) {
  let chain = Buffer.alloc(0);
  return seqs.map((seq, nth) => {
    const type = nth === 0 ? "run_queued" : nth === seqs.length - 1 ? "finish" : "message_delta";
    const told = { seq, run_id: runId, attempt: 1, event_type: type, delta: `«${seq} 🌊»` };
    if (type === "finish") told.digest = chain.toString("hex");
    const data = JSON.stringify(told);
    chain = createHash("sha256").update(chain).update(data).digest();
    return `id: s:${seq}\nevent: ${type === "finish" ? "finish" : "delta"}\ndata: ${change(data)}\n\n`;
  });
}

async function judged(tailrace, options = {}) {
  const verdicts = [];
  await tailrace.follow("s", { ...options, onDigest: ({ run_id, verified }) => verdicts.push([run_id, verified]) });
  return verdicts;
}

test("a run read over a cut from its first event is proven, one with a changed character is not", () => {
  const whole = run("a", [1, 2, 3, 4]);
  const changed = run("b", [5, 6, 7], (text) => text.replace("«6", "<6"));
  return served(
    [{ text: RETRY + whole.slice(0, 2).join(""), cut: true }, { text: [...whole.slice(1), ...changed].join("") }],
    async (tailrace) => assert.deepEqual(await judged(tailrace), [["a", true], ["b", false]]),
  );
});

test("runs that are interleaved are proven each, one joined in its middle is not judged", () => {
  const [a, b] = [run("a", [2, 4, 6]), run("b", [3, 5, 7])];
  const text = [run("c", [0, 1])[1], a[0], b[0], a[1], b[1], a[2], b[2]].join("");
  return served([{ text: RETRY + text }], async (tailrace) => {
    assert.deepEqual(await judged(tailrace, { lastEventId: "s:0" }), [["a", true], ["b", true]]);
  });
});

test("after a reset a run is judged by what comes then", () => {
  const whole = run("a", [1, 2, 3]);
  const text = whole.slice(0, 2).join("") + control("stream.reset") + whole.join("");
  return served([{ text: RETRY + text }], async (tailrace) => assert.deepEqual(await judged(tailrace), [["a", true]]));
});

for (const name of ["onFrame", "onState", "onDigest"]) {
  test(`what ${name} throws reaches the caller at once, and nothing is asked for again`, () =>
    served([{ text: RETRY + run("a", [1, 2, 3]).join(""), held: true }], async (tailrace, requests) => {
      const mistake = new TailraceError(503, {}); // of the server's it would be borne
      const told = [];
      const mistaken = (word) => {
        if (word === "connecting") return;
        told.push(word);
        throw mistake;
      };
      const signal = AbortSignal.timeout(5_000);
      const following = tailrace.follow("s", { follow: "session", signal, [name]: mistaken });
      await assert.rejects(following, (error) => error === mistake);
      assert.ok(!signal.aborted);
      assert.deepEqual([told.length, requests.length], [1, 1]);
    }));
}

test("what onDigest throws ends the wait for the next connection, too", (t) => {
  const text = "retry: 600000\n\n" + run("a", [1, 2, 3]).join("");
  const mistake = new Error("not what its worker wrote");
  const digest = crypto.subtle.digest.bind(crypto.subtle);
  return served([{ text }], async (tailrace) => {
    let sleep;
    const asleep = new Promise((resolve) => (sleep = resolve));
    t.mock.method(crypto.subtle, "digest", (...given) => asleep.then(() => digest(...given)));
    const signal = AbortSignal.timeout(5_000);
    const following = tailrace.follow("s", {
      follow: "session",
      signal,
      onState: (state) => state === "offline" && sleep(),
      onDigest: () => {
        throw mistake;
      },
    });
    await assert.rejects(following, (error) => error === mistake);
    assert.ok(!signal.aborted);
  });
});
