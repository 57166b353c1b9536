/**
 * Server-sent events, parsed as the bytes come (WHATWG HTML, section 9.2.6).
 *
 * The browser's own EventSource can send no Authorization header and tells nothing of the status it got, so
 * a client that needs either reads the stream with fetch and parses it itself. This is all it takes.
 */

export const MAX_FRAME_CHARACTERS = 4 * 1024 * 1024;

export class SseParser {
  /** The last `retry:` of the stream, in milliseconds; null until there is one. */
  retry = null;

  // One decoder for the whole stream: it keeps the first bytes of a character that two chunks share, and
  // drops a byte order mark.
  #decoder = new TextDecoder("utf-8");
  #line = ""; // the unfinished line
  #afterCr = false; // the last chunk ended in CR: an LF that comes next belongs to it
  #event = "";
  #data = [];
  #id = null;
  #held = 0; // characters of the unfinished frame

  /**
   * The frames that `bytes` completes: `{event, data, id}`, where `id` is the frame's own, or null.
   * Throws a RangeError when a frame grows past the limit.
   */
  feed(bytes) {
    let text = this.#decoder.decode(bytes, { stream: true });
    if (text === "") return [];
    if (this.#afterCr && text[0] === "\n") text = text.slice(1);
    this.#afterCr = text.endsWith("\r");

    const frames = [];
    const lines = text.split(/\r\n|\n|\r/);
    const rest = lines.pop();
    for (const piece of lines) {
      this.#hold(piece);
      const line = this.#line;
      this.#line = "";
      const frame = this.#take(line);
      if (frame) frames.push(frame);
    }
    this.#hold(rest);
    return frames;
  }

  #hold(piece) {
    this.#held += piece.length;
    if (this.#held > MAX_FRAME_CHARACTERS) throw new RangeError("a frame is too large");
    this.#line += piece;
  }

  #take(line) {
    if (line === "") return this.#dispatch();
    const colon = line.indexOf(":");
    const name = colon < 0 ? line : line.slice(0, colon);
    let value = colon < 0 ? "" : line.slice(colon + 1);
    if (value.startsWith(" ")) value = value.slice(1);

    if (name === "data") this.#data.push(value);
    else if (name === "event") this.#event = value;
    else if (name === "id" && !value.includes("\0")) this.#id = value;
    else if (name === "retry" && /^\d{1,9}$/.test(value)) this.retry = Number(value);
    return null; // a comment has an empty name; other names are ignored, as the standard wants
  }

  #dispatch() {
    const frame =
      this.#data.length > 0
        ? { event: this.#event || "message", data: this.#data.join("\n"), id: this.#id }
        : null;
    this.#event = "";
    this.#data = [];
    this.#id = null;
    this.#held = 0;
    return frame;
  }
}
