/** The conversation on the page. Touches only what has changed since it last looked. */

import { element, setText } from "./dom.js";
import { showMarkdown } from "./markdown.js";
import { ToolCard } from "./toolcard.js";

const NEAR_BOTTOM_PX = 60;

export class ConversationView {
  #parts = new Map(); // by the item's key
  #items = null;
  #unlinked = new Set(); // prompts without a link to their run's trace

  constructor({ list, scroller, latest, working }) {
    Object.assign(this, { list, scroller, latest, working });
    scroller.addEventListener("scroll", () => this.#followButton(false), { passive: true });
    latest.addEventListener("click", () => this.toBottom());
  }

  /** Shows `items`; `working` says that a run is active. */
  show(items, working) {
    const follows = this.#atBottom();
    const grew = items !== this.#items;
    if (grew) this.#reconcile(items);
    this.#items = items;
    const last = items.at(-1);
    const writing = last?.kind === "message" && last.role === "assistant" && last.status === "streaming" && last.text;
    this.working.hidden = !working || Boolean(writing);
    this.list.setAttribute("aria-busy", String(working));
    if (follows) this.toBottom();
    else this.#followButton(grew);
  }

  /** Puts a link to its trace at each prompt whose run has one; `urlOf(runId)` gives its address, or null. */
  link(urlOf) {
    for (const part of this.#unlinked) {
      const url = urlOf(part.runId);
      if (!url) continue;
      part.link(url);
      this.#unlinked.delete(part);
    }
  }

  /** Shows nothing: another conversation is to come. */
  clear() {
    this.#parts.clear();
    this.#unlinked.clear();
    this.#items = null;
    this.list.replaceChildren();
    this.latest.hidden = this.working.hidden = true;
  }

  toBottom() {
    this.scroller.scrollTop = this.scroller.scrollHeight;
    this.latest.hidden = true;
  }

  #atBottom() {
    const { scrollHeight, scrollTop, clientHeight } = this.scroller;
    return scrollHeight - scrollTop - clientHeight < NEAR_BOTTOM_PX;
  }

  #followButton(grew) {
    if (this.#atBottom()) this.latest.hidden = true;
    else if (grew) this.latest.hidden = false;
  }

  #reconcile(items) {
    const keys = new Set(items.map((item) => item.key));
    for (const [key, part] of this.#parts) {
      if (keys.has(key)) continue;
      part.node.remove();
      this.#parts.delete(key);
      this.#unlinked.delete(part);
    }
    let before = null;
    for (const item of items) {
      let part = this.#parts.get(item.key);
      if (!part) {
        part = item.kind === "note" ? new Note() : new Message(item.role, item.runId);
        this.#parts.set(item.key, part);
        if (item.role === "user" && item.runId) this.#unlinked.add(part);
      }
      const place = before ? before.nextElementSibling : this.list.firstElementChild;
      if (place !== part.node) this.list.insertBefore(part.node, place);
      part.show(item);
      before = part.node;
    }
  }
}

class Message {
  #shown = null;
  #tools = new Map();
  #thoughts = null;

  constructor(role, runId) {
    this.runId = runId;
    this.text = element("div", { class: "text", "data-testid": "text" });
    this.tools = element("div", { class: "tools" });
    this.node = element(
      "li",
      { class: `message ${role}`, "data-testid": `message-${role}` },
      element("span", { class: "sr-only", text: role === "user" ? "You:" : "Answer:" }),
      this.text,
      this.tools,
    );
  }

  show(message) {
    if (message === this.#shown) return;
    const old = this.#shown;
    this.#shown = message;
    this.node.dataset.status = message.status;
    this.node.hidden = message.text === "" && message.tools.length === 0 && message.reasoning === "";
    if (message.text !== old?.text) {
      if (message.role === "user") setText(this.text, message.text);
      else showMarkdown(this.text, message.text);
      this.text.hidden = message.text === "";
    }
    if (message.reasoning && message.reasoning !== old?.reasoning) this.#think(message.reasoning);
    if (message.tools !== old?.tools) this.#showTools(message.tools);
  }

  /** Adds a link to the trace of the run. */
  link(href) {
    const link = { class: "trace", href, target: "_blank", rel: "noreferrer", text: "Trace", "data-testid": "trace" };
    this.node.append(element("a", link));
  }

  #think(reasoning) {
    if (!this.#thoughts) {
      this.#thoughts = element("div", { class: "thoughts" });
      const summary = element("summary", { text: "Reasoning" });
      this.text.before(element("details", { class: "reasoning" }, summary, this.#thoughts));
    }
    setText(this.#thoughts, reasoning);
  }

  #showTools(tools) {
    for (const tool of tools) {
      let card = this.#tools.get(tool.id);
      if (!card) {
        card = new ToolCard();
        this.#tools.set(tool.id, card);
        this.tools.append(card.node);
      }
      card.show(tool);
    }
  }
}

class Note {
  constructor() {
    this.title = element("strong");
    this.text = element("span");
    this.node = element("li", { class: "note", role: "status", "data-testid": "note" }, this.title, this.text);
  }

  show({ level, title, text }) {
    this.node.dataset.level = level;
    setText(this.title, title);
    setText(this.text, text);
  }
}
