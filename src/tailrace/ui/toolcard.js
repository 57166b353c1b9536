/** A tool call as a card: its name and state at a glance, its arguments and output on opening. */

import { element, setText } from "./dom.js";

const STATES = {
  pending: "preparing",
  running: "running",
  success: "done",
  error: "failed",
  stopped: "stopped",
};

export class ToolCard {
  #shown = null;

  constructor() {
    this.icon = element("span", { class: "tool-icon", "aria-hidden": "true" });
    this.name = element("span", { class: "tool-name" });
    this.brief = element("span", { class: "tool-brief" });
    this.state = element("span", { class: "tool-state" });
    this.input = element("pre", { "data-testid": "tool-input", tabindex: "0" });
    this.output = element("pre", { "data-testid": "tool-output", tabindex: "0" });
    this.outputLabel = element("h4", { text: "Output" });
    this.node = element(
      "details",
      { class: "tool", "data-testid": "tool" },
      element("summary", {}, this.icon, this.name, this.brief, this.state),
      element("div", { class: "tool-body" }, element("h4", { text: "Input" }), this.input, this.outputLabel, this.output),
    );
  }

  show(tool) {
    if (tool === this.#shown) return;
    this.#shown = tool;
    const output = tool.output ?? tool.progress;
    this.node.dataset.status = tool.status;
    setText(this.name, tool.name || "tool");
    setText(this.brief, brief(tool));
    setText(this.state, STATES[tool.status] ?? tool.status);
    setText(this.input, tool.input === undefined ? tool.args : pretty(tool.input));
    setText(this.outputLabel, tool.output === undefined && tool.progress !== undefined ? "Progress" : "Output");
    this.outputLabel.hidden = this.output.hidden = output === undefined;
    setText(this.output, output === undefined ? "" : pretty(output));
  }
}

/** The arguments in a few words. */
function brief({ input, args }) {
  if (input === undefined) return args;
  if (input === null || typeof input !== "object") return String(input ?? "");
  return Object.values(input)
    .map((value) => (typeof value === "string" ? value : JSON.stringify(value)))
    .join(", ");
}

function pretty(value) {
  return typeof value === "string" ? value : JSON.stringify(value, null, 2);
}
