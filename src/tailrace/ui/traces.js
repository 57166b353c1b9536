/** Links to the traces of runs. All of a deployment's begin alike: the server is asked for one of them, once. */

export class Traces {
  #prefix; // of each address, in front of the trace's id; null while it is not known, or is not to be had

  /** `get(path)` fetches JSON; `onKnown()` is called when links can be made. */
  constructor({ get, onKnown }) {
    Object.assign(this, { get, onKnown });
  }

  /** The address of the trace of a run, or null: without tracing no event has a trace id. */
  url(session, runId, traceId) {
    if (!traceId) return null;
    if (this.#prefix === undefined) this.#ask(`api/apps/${session}/agent/runs/${runId}`, traceId);
    return this.#prefix && this.#prefix + traceId;
  }

  async #ask(path, traceId) {
    this.#prefix = null;
    try {
      const { trace_url: url } = await this.get(path);
      if (!url?.endsWith(traceId) || !/^https?:\/\//.test(url)) return;
      this.#prefix = url.slice(0, -traceId.length);
      this.onKnown();
    } catch {
      // A page without links is a page still; the next time it opens, it asks again.
    }
  }
}
