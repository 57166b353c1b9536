/** The sessions at the side. */

import { element, setText } from "./dom.js";

export class Sidebar {
  #links = new Map(); // by session id

  constructor({ list, empty }) {
    Object.assign(this, { list, empty });
  }

  /** Shows `apps`, newest first, and marks the `current` one. */
  show(apps, current) {
    const known = new Set(apps.map((app) => app.session_id));
    for (const [id, link] of this.#links) {
      if (known.has(id)) continue;
      link.node.remove();
      this.#links.delete(id);
    }
    apps.forEach((app, at) => {
      const link = this.#link(app.session_id);
      setText(link.title, app.title || "Untitled");
      setText(link.when, ago(app.updated_at));
      if (this.list.children[at] !== link.node) this.list.insertBefore(link.node, this.list.children[at] ?? null);
    });
    this.empty.hidden = apps.length > 0;
    this.mark(current);
  }

  mark(current) {
    for (const [id, { anchor }] of this.#links) {
      if (id === current) anchor.setAttribute("aria-current", "page");
      else anchor.removeAttribute("aria-current");
    }
  }

  #link(id) {
    let link = this.#links.get(id);
    if (!link) {
      const title = element("span", { class: "session-title" });
      const when = element("span", { class: "session-when" });
      const anchor = element("a", { href: `#${id}`, "data-testid": "session" }, title, when);
      link = { node: element("li", {}, anchor), anchor, title, when };
      this.#links.set(id, link);
    }
    return link;
  }
}

const UNITS = [
  ["day", 86_400],
  ["hour", 3_600],
  ["minute", 60],
];
const FORMAT = new Intl.RelativeTimeFormat("en", { numeric: "auto" });

function ago(seconds) {
  const age = Date.now() / 1000 - seconds;
  for (const [unit, length] of UNITS) if (age >= length) return FORMAT.format(-Math.floor(age / length), unit);
  return "just now";
}
