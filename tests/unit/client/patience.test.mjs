/** Asking again while the server is away. */

import assert from "node:assert/strict";
import { test } from "node:test";

import { patiently } from "../../../src/tailrace/ui/patience.js";
import { TailraceError } from "../../../src/tailrace/ui/tailrace.js";

const lost = () => new TypeError("Failed to fetch");
const refused = (status) => new TailraceError(status, {});

/** Asks a server that answers as `answers` say, in turn, and then with the last of them for ever. */
async function asked(answers, options = {}) {
  let calls = 0;
  const away = [];
  const ask = async () => {
    const answer = answers[Math.min(calls++, answers.length - 1)];
    if (answer instanceof Error) throw answer;
    return answer;
  };
  const onAway = (error) => away.push(error);
  const signal = options.signal ?? new AbortController().signal;
  const outcome = await patiently(ask, { signal, onAway, ...options }).catch((error) => error);
  return { outcome, calls, away };
}

test("a lost connection and a service that is away are asked again, until there is an answer", async () => {
  const answers = [lost(), refused(503), "run"];
  assert.deepEqual(await asked(answers), { outcome: "run", calls: 3, away: answers.slice(0, 2) });
});

test("what the server refuses is not asked again", async () => {
  for (const status of [400, 409, 422, 429, 500]) {
    const error = refused(status);
    assert.deepEqual(await asked([error]), { outcome: error, calls: 1, away: [] });
  }
});

test("when the time is over the last failure is thrown", async () => {
  const last = refused(502);
  const { outcome, calls, away } = await asked([lost(), last], { forMs: 20 });
  assert.equal(outcome, last);
  assert.equal(away.length, calls - 1);
});

test("a stop ends the waiting", async () => {
  const stop = new AbortController();
  const error = new TailraceError(503, {}, 3_600_000);
  const outcome = asked([error], { signal: stop.signal, forMs: 3_600_000 });
  setImmediate(() => stop.abort());
  assert.deepEqual(await outcome, { outcome: error, calls: 1, away: [error] });
});
