/**
 * A small client for Tailrace. Copy it, sse.js, network.js and digest.js into your own page.
 *
 *   const tailrace = new Tailrace({ base: location.origin, token: async () => myToken() });
 *   await tailrace.generate("my-session", { prompt: "Hello" });
 *   await tailrace.follow("my-session", { follow: "session", onFrame: (frame) => show(frame.data) });
 *
 * `follow` hands over every event of a session once and in order, whatever happens to the connection. What it
 * knows of the place it has reached is one string, the id of the last event, and the server does the rest.
 */

import { RunDigests } from "./digest.js";
import { Watchdog, nextChance } from "./network.js";
import { SseParser } from "./sse.js";

const RETRY_MS = 3_000; // until the server says otherwise by `retry:`
const LONGEST_PAUSE_MS = 20_000;
const HEALTHY_MS = 5_000; // a connection that lived longer was a good one, events or not
const HOLES_BORNE = 3; // in a row, at one place: more is a broken log, which asking again does not mend

/** The server refused a request: its `status`, and in `message` what its problem document says. */
export class TailraceError extends Error {
  constructor(status, problem, retryAfterMs = 0) {
    super(problem.detail || problem.title || `The server answered ${status}.`);
    this.name = "TailraceError";
    this.status = status;
    this.problem = problem;
    this.retryAfterMs = retryAfterMs;
  }

  /** Whether the same request may succeed later. */
  get passing() {
    return this.status === 429 || this.status >= 500;
  }
}

export class Tailrace {
  /**
   * `base` is the server's address; `token` a bearer token, or a function that returns one or a promise of
   * one (it is asked before each request, so it can renew what has expired).
   */
  constructor({ base, token }) {
    this.base = base.endsWith("/") ? base : `${base}/`;
    this.token = token;
  }

  /**
   * Starts a run and returns at once: `{session_id, run_id, state, stream}`. What it does arrives through
   * `follow`. `run` is the body: `prompt` or `content_parts`, and optionally `agent`, `model`, `on_conflict`,
   * `on_disconnect`, `metadata`. A repeat with the same `idempotencyKey` joins the first run.
   */
  async generate(session, run, { idempotencyKey = randomId(), signal } = {}) {
    const headers = { "Content-Type": "application/json", "Idempotency-Key": idempotencyKey, Prefer: "respond-async" };
    const sent = { method: "POST", headers, body: JSON.stringify(run), signal };
    return (await this.request(`api/apps/${session}/agent/generate`, sent)).json();
  }

  /** Asks for the end of the session's active run: `{session_id, run_id, state}`. Harmless when nothing runs. */
  async cancel(session, { signal } = {}) {
    return (await this.request(`api/apps/${session}/agent/cancel`, { method: "POST", signal })).json();
  }

  /** The JSON at `path`. */
  async get(path, { signal } = {}) {
    return (await this.request(path, { signal })).json();
  }

  /** A fetch with the token. Throws a TailraceError for an error status, a TypeError without a connection. */
  async request(path, options = {}) {
    const token = typeof this.token === "function" ? await this.token() : this.token;
    const headers = { ...options.headers, Authorization: `Bearer ${token}` };
    const response = await fetch(new URL(path, this.base), { ...options, headers, cache: "no-store" });
    if (response.ok) return response;
    throw new TailraceError(
      response.status,
      await response.json().catch(() => ({})), // a proxy's error page is no JSON
      1000 * (Number(response.headers.get("Retry-After")) || 0),
    );
  }

  /**
   * Hands over what happened in `session` and what happens next; resolves when there is no more to come.
   *
   * - `lastEventId`: begin after this event; else at `sinceTimestamp` (Unix seconds); else at the beginning.
   * - `runId`: this run's events only.
   * - `follow`: "run" ends after the active run, "session" never, "none" after the history.
   * - `onFrame({event, id, seq, data})`: each event once, in order. `seq` is null for a word about the stream
   *   itself: after `stream.reset` whatever came before no longer counts; `stream.ready` opens a connection.
   * - `onState(state)`: "connecting", "live" or "offline".
   * - `onDigest({run_id, verified})`: at the end of each run that was handed over from its first event, whether
   *   it is what its worker wrote. Not called in a page without HTTPS, where browsers refuse to hash.
   * - `signal`: an AbortSignal that ends it.
   *
   * Rejects with a TailraceError when the server refuses: 401 (get a new token), 404 (no such session); and
   * with whatever one of these functions throws.
   */
  async follow(session, options = {}) {
    const following = new Following(this, session, options);
    await following.run();
    await following.digests?.settled;
  }
}

/** One reader's way through one session's log, over all its connections. */
class Following {
  digests; // where they are asked for and possible
  #client;
  #session;
  #options;
  #signal; // aborted by the caller's own, and by #thrown
  #thrown = new AbortController(); // aborted when a function of the caller's throws: what, is the reason
  #lastId;
  #since;
  #lastSeq = 0;
  #lastEvent = ""; // the name of the newest frame
  #holes = 0;
  #attempts = 0; // to come back, since the last sign of life
  #retry = RETRY_MS;
  #connectedAt = 0;

  constructor(client, session, options) {
    this.#client = client;
    this.#session = session;
    this.#options = { follow: "run", onFrame() {}, onState() {}, ...options };
    this.#signal = AbortSignal.any([this.#thrown.signal, options.signal].filter(Boolean));
    this.#lastId = options.lastEventId ?? null;
    this.#since = options.sinceTimestamp ?? null;
    const tell = (verdict) => this.#tell("onDigest", verdict);
    if (options.onDigest && RunDigests.possible) this.digests = new RunDigests(tell);
  }

  async run() {
    while (!this.#signal.aborted) {
      let wait = 0;
      this.#options.onState("connecting");
      try {
        if (await this.#connect()) return;
      } catch (error) {
        this.#thrown.signal.throwIfAborted();
        if (this.#signal.aborted) return;
        if (error instanceof TailraceError && !error.passing) throw error;
        if (error instanceof BrokenLog) throw error;
        wait = error.retryAfterMs ?? 0;
      }
      if (this.#signal.aborted) return;
      if (this.#connectedAt && performance.now() - this.#connectedAt > HEALTHY_MS) this.#attempts = 0;
      this.#connectedAt = 0;
      this.#options.onState("offline");
      await nextChance(Math.max(wait, this.#pause()), this.#signal);
    }
  }

  /** A tenth of the server's `retry:` at first, doubled each time; the jitter spreads a crowd. */
  #pause() {
    const longest = Math.min(LONGEST_PAUSE_MS, (this.#retry / 10) * 2 ** Math.min(this.#attempts++, 10));
    return longest * (0.5 + Math.random() / 2);
  }

  /** One connection, from request to end. Whether there is nothing more to come. */
  async #connect() {
    const connection = new AbortController();
    const watchdog = new Watchdog(() => connection.abort(new Error("not to be trusted")));
    const forward = () => connection.abort(this.#signal.reason);
    this.#signal.addEventListener("abort", forward, { once: true });
    try {
      const response = await this.#client.request(this.#path(), {
        headers: { Accept: "text/event-stream", ...(this.#lastId && { "Last-Event-ID": this.#lastId }) },
        signal: connection.signal,
      });
      if (response.status === 204) return true; // at the end, and nothing runs
      this.#connectedAt = performance.now();
      this.#tell("onState", "live");
      await this.#read(response.body, watchdog);
      return this.#ended();
    } finally {
      this.#signal.removeEventListener("abort", forward);
      watchdog.stop();
      connection.abort(); // also where `onFrame` threw: never leave a stream open behind our back
    }
  }

  #path() {
    const query = new URLSearchParams({ follow: this.#options.follow });
    if (this.#options.runId) query.set("run_id", this.#options.runId);
    if (this.#since !== null && !this.#lastId) query.set("since_timestamp", this.#since);
    return `api/apps/${this.#session}/agent/stream-continue?${query}`;
  }

  async #read(body, watchdog) {
    const parser = new SseParser();
    const reader = body.getReader();
    for (;;) {
      const { done, value } = await reader.read();
      if (done || this.#signal.aborted) return;
      watchdog.feed(); // comments count: they are there for this
      for (const frame of parser.feed(value)) {
        this.#take(frame);
        if (this.#signal.aborted) return;
      }
      this.#retry = parser.retry ?? this.#retry;
    }
  }

  #take({ event, data: json, id }) {
    const data = JSON.parse(json);
    const seq = id === null ? null : data.seq;
    this.#lastEvent = event;
    if (seq === null) {
      if (event === "stream.reset") this.#forget();
    } else {
      if (seq <= this.#lastSeq) return; // seen already
      this.#checkHole(seq);
      this.#lastSeq = seq;
      this.#lastId = id;
      this.#attempts = 0;
    }
    if (seq !== null) this.digests?.take(data, json);
    this.#tell("onFrame", { event, id, seq, data });
  }

  /** Calls a function of the caller's. What it throws is no cut connection: it ends all, and is the caller's to see. */
  #tell(name, word) {
    try {
      this.#options[name](word);
    } catch (error) {
      this.#thrown.abort(error);
      throw error;
    }
  }

  /** Throws when an event is missing before `seq`: asking again from the last one brings it. */
  #checkHole(seq) {
    // One run's events have others between them. And the first event seen may have any place.
    if (this.#options.runId || this.#lastSeq === 0 || seq === this.#lastSeq + 1) {
      this.#holes = 0;
      return;
    }
    this.#holes += 1;
    const missing = `after event ${this.#lastSeq} comes event ${seq}`;
    throw this.#holes > HOLES_BORNE ? new BrokenLog(missing) : new Error(missing);
  }

  #forget() {
    this.digests?.forget();
    this.#lastSeq = 0;
    this.#lastId = null;
    this.#since = null;
  }

  /** Whether a stream that the server closed in good order has ended for good. */
  #ended() {
    // After `stream.expired` the token is asked for again, and the server says 401 or 404 if that is no help.
    if (["stream.rotate", "stream.expired", "stream.reset", "stream.lagged"].includes(this.#lastEvent)) return false;
    if (this.#options.follow === "session") return false;
    // An empty replay where nothing runs ends with `stream.ready`; any other end wants the server's 204.
    return this.#options.follow === "none" || ["finish", "stream.ready"].includes(this.#lastEvent);
  }
}

/** The log itself has a hole. */
class BrokenLog extends Error {}

/** 32 hexadecimal digits; also where `crypto.randomUUID` is missing because the page came over plain HTTP. */
export function randomId() {
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}
