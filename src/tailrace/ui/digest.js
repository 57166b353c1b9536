/**
 * The digest of a run: proof that a reader saw all of its frames, unchanged. Its `finish` carries it.
 *
 * h₀ is empty, hₙ = SHA-256(hₙ₋₁ ‖ frame n's JSON), the `finish` left out, in hexadecimal.
 */

const utf8 = new TextEncoder();

export class RunDigests {
  /** Resolves when every `finish` so far has been judged. */
  settled = Promise.resolve();

  #chains = new Map(); // run id to a promise of its newest hash, of runs that were seen from their first event
  #onDigest;

  /** `onDigest({run_id, verified})` is called for each `finish` of a run that was seen from its first event. */
  constructor(onDigest) {
    this.#onDigest = onDigest;
  }

  /** Whether this page may hash: browsers allow it over HTTPS and on localhost only. */
  static get possible() {
    return Boolean(globalThis.crypto?.subtle);
  }

  /** Takes the next event, and its JSON to the character as it came. */
  take({ run_id, event_type, attempt, digest }, json) {
    if (event_type === "run_queued" && attempt === 1) this.#chains.set(run_id, Promise.resolve(new Uint8Array()));
    const chain = this.#chains.get(run_id);
    if (!chain) return;
    if (event_type !== "finish") {
      this.#chains.set(run_id, chain.then((hash) => link(hash, json)));
      return;
    }
    this.#chains.delete(run_id);
    if (!digest) return;
    this.settled = this.settled.then(() => chain).then((hash) => this.#judge(run_id, hash, digest));
    this.settled.catch(() => {}); // what `onDigest` throws is for whoever awaits it, which may be later
  }

  /** What was taken before no longer counts. */
  forget() {
    this.#chains.clear();
  }

  #judge(run_id, hash, digest) {
    const hex = Array.from(hash, (byte) => byte.toString(16).padStart(2, "0")).join("");
    this.#onDigest({ run_id, verified: hex === digest });
  }
}

async function link(hash, json) {
  const frame = utf8.encode(json);
  const both = new Uint8Array(hash.length + frame.length);
  both.set(hash);
  both.set(frame, hash.length);
  return new Uint8Array(await crypto.subtle.digest("SHA-256", both));
}
