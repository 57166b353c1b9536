/** The prompts on their way to the server. Each has a key of its own, so sending it twice runs it once. */

import { patiently } from "./patience.js";
import { TailraceError, randomId } from "./tailrace.js";

export class Outbox {
  pending = null; // what was sent in the session that is shown, until it comes back as an event
  #unsent = new Map(); // by session: {text, after, key} of what was not sent, for all we know
  #post;
  #onChange;

  /** `post(session, text, key)` gives the prompt to the server: a promise of its run. */
  constructor({ post, onChange }) {
    this.#post = post;
    this.#onChange = onChange;
  }

  /** Resolves when the server has the prompt; throws what was last heard when it cannot be had. */
  async send({ id, state }, text) {
    const before = this.#unsent.get(id);
    const key = before?.text === text ? before.key : randomId();
    const mine = {
      text,
      after: state.lastSeq,
      away: null, // why nobody takes it at the moment
      arrived: new AbortController(),
      item: { key: "pending", kind: "message", role: "user", text, tools: [], reasoning: "", status: "complete" },
    };
    this.pending = mine;
    const patience = { signal: mine.arrived.signal, onAway: (error) => this.#mark(mine, why(error)) };
    try {
      mine.runId = (await patiently(() => this.#post(id, text, key), patience)).run_id;
      this.#unsent.delete(id);
      this.#mark(mine, null);
    } catch (error) {
      if (mine.arrived.signal.aborted) return; // only the answer was lost
      this.#unsent.set(id, { text, after: mine.after, key });
      if (this.pending === mine) this.pending = null;
      throw error;
    }
  }

  /** Another session is shown. */
  leave() {
    this.pending = null;
  }

  /** The text of what could not be sent in a session, if there is any. */
  unsent(id) {
    return this.#unsent.get(id)?.text ?? "";
  }

  /** Takes note of what the log tells: the prompt, in other words perhaps, for a huge one is cut. */
  settle({ id, state }) {
    if (this.#unsent.has(id) && told(this.#unsent.get(id), state)) this.#unsent.delete(id);
    if (!this.pending) return;
    const { runId } = this.pending;
    const run = state.runs[runId];
    const over = run && run.status !== "queued" && state.activeRun !== runId;
    if (!over && !told(this.pending, state)) return;
    this.pending.arrived.abort();
    this.pending = null;
  }

  #mark(mine, away) {
    mine.away = away;
    mine.item = { ...mine.item, status: away ? "unsent" : "complete" };
    this.#onChange();
  }
}

function why(error) {
  if (error instanceof TailraceError) return "The server cannot take your prompt at the moment.";
  return "The server cannot be reached.";
}

function told({ text, after }, { items }) {
  return items.some((item) => item.role === "user" && item.seq > after && item.text.trim() === text.trim());
}
