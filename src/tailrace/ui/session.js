/** One session as the page reads it: its stream, and what the stream adds up to. */

import { EMPTY } from "./conversation.js";
import { TailraceError } from "./tailrace.js";

const SETTLE_MS = 700; // for a history that is slow to come: show what is there

export class ReadingSession {
  state = EMPTY;
  connection = "connecting"; // new (nothing on the server yet), connecting, live, offline
  #following = null;
  #lastId = null;
  #tail = null; // the log's end when the stream opened
  #settled = false;

  /** `onRefused(error)` says whether to try again; `onEvent(frame)` sees each event. */
  constructor({ id, tailrace, reduce, onChange, onRefused, onEvent }) {
    Object.assign(this, { id, tailrace, reduce, onChange, onRefused, onEvent });
    this.timer = setTimeout(() => this.#settle(), SETTLE_MS);
  }

  /** Whether what was there when the page opened has come. */
  get settled() {
    return this.#settled;
  }

  /** Follows the session, if that is not under way. */
  follow() {
    this.#following ??= this.#run(new AbortController());
  }

  close() {
    clearTimeout(this.timer);
    this.onChange = this.onEvent = () => {};
    this.#following?.connection.abort();
  }

  #run(connection) {
    const done = this.#read(connection.signal).finally(() => (this.#following = null));
    return { connection, done };
  }

  async #read(signal) {
    for (;;) {
      try {
        await this.tailrace.follow(this.id, {
          follow: "session",
          lastEventId: this.#lastId,
          signal,
          onFrame: (frame) => this.#take(frame),
          onState: (state) => this.#connect(state),
        });
        return;
      } catch (error) {
        if (signal.aborted) return;
        const unknown = error instanceof TailraceError && error.status === 404;
        if (unknown || !(await this.onRefused(error))) {
          this.#connect(unknown ? "new" : "offline");
          this.#settle();
          return;
        }
      }
    }
  }

  #take(frame) {
    this.state = this.reduce(this.state, frame);
    if (frame.event === "stream.ready") this.#tail = frame.data.tail_seq;
    if (frame.event === "stream.reset") this.#lastId = null;
    if (frame.seq !== null) {
      this.#lastId = frame.id;
      this.onEvent(frame);
    }
    if (this.#tail !== null && this.state.lastSeq >= this.#tail) this.#settle();
    this.onChange();
  }

  #connect(state) {
    // A stream that is cut comes back within a moment: a word that flashes up tells nobody anything.
    if (state === "connecting" && this.connection === "offline") return;
    this.connection = state;
    this.onChange();
  }

  #settle() {
    clearTimeout(this.timer);
    this.#settled = true;
    this.onChange();
  }
}
