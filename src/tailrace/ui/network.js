/** When to trust a connection, and when to try for a new one: what the browser knows of its network. */

const SILENCE_MS = 35_000; // the server comments every 15 s at least; two missed mean a dead connection
const NETWORK = ["online", "offline"]; // the browser's words for a network that has changed

/**
 * Calls `bark` when a connection is not to be trusted any more: nothing has come for a while, or the network
 * has changed under it, or the machine slept (timers do too) and the reader is back.
 */
export class Watchdog {
  #timer;
  #bark;
  #fed;
  #seen = () => document.visibilityState === "visible" && this.#silence() > SILENCE_MS / 2 && this.#bark();

  constructor(bark) {
    this.#bark = bark;
    this.feed();
    for (const change of NETWORK) globalThis.addEventListener?.(change, this.#bark);
    globalThis.document?.addEventListener("visibilitychange", this.#seen);
  }

  feed() {
    this.#fed = Date.now();
    clearTimeout(this.#timer);
    this.#timer = setTimeout(this.#bark, SILENCE_MS);
  }

  stop() {
    clearTimeout(this.#timer);
    for (const change of NETWORK) globalThis.removeEventListener?.(change, this.#bark);
    globalThis.document?.removeEventListener("visibilitychange", this.#seen);
  }

  #silence() {
    return Date.now() - this.#fed;
  }
}

/** Resolves after `ms`, or as soon as the network or the reader's eyes come back, or `signal` says stop. */
export function nextChance(ms, signal) {
  return new Promise((resolve) => {
    const done = () => {
      clearTimeout(timer);
      globalThis.removeEventListener?.("online", done);
      globalThis.document?.removeEventListener("visibilitychange", seen);
      signal.removeEventListener("abort", done);
      resolve();
    };
    const seen = () => document.visibilityState === "visible" && done();
    const timer = setTimeout(done, ms);
    globalThis.addEventListener?.("online", done);
    globalThis.document?.addEventListener("visibilitychange", seen);
    signal.addEventListener("abort", done);
  });
}
