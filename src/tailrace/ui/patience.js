/** Asking again while the server is away: only for what is safe to ask twice. */

import { nextChance } from "./network.js";
import { TailraceError } from "./tailrace.js";

const FOR_MS = 30_000; // from the first failure; a server restarts, or another is elected, within a third of it
const FIRST_PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 4_000;

/**
 * The result of `ask`, which is called again while nobody answers, or answers 502, 503 or 504. Throws what it
 * threw last when `forMs` are over, or `signal` says stop; any other answer at once. `onAway(error)` hears of
 * each failure that is not the last.
 */
export async function patiently(ask, { signal, onAway, forMs = FOR_MS }) {
  let until = null;
  for (let attempt = 0; ; attempt += 1) {
    try {
      return await ask();
    } catch (error) {
      until ??= performance.now() + forMs; // what came before may have been a person who looked for a token
      const left = until - performance.now();
      if (signal.aborted || !isAway(error) || left <= 0) throw error;
      onAway(error);
      const pause = Math.min(LONGEST_PAUSE_MS, FIRST_PAUSE_MS * 2 ** attempt) * (0.5 + Math.random() / 2);
      await nextChance(Math.min(left, Math.max(pause, error.retryAfterMs ?? 0)), signal);
      if (signal.aborted) throw error;
    }
  }
}

/** A server that says 500 has failed at this very request, and will again. */
function isAway(error) {
  return !(error instanceof TailraceError) || [502, 503, 504].includes(error.status);
}
