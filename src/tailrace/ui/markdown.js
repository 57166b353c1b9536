/**
 * The little Markdown that models write, as DOM nodes: paragraphs, headings, lists, quotes, fenced code,
 * `code`, **bold**, *italics* and links. Built by textContent alone.
 *
 * While a text grows, only the blocks whose source has changed are built again: the last one, as a rule.
 */

import { element } from "./dom.js";

/** Makes `node` show `text`. */
export function showMarkdown(node, text) {
  const sources = blocks(text);
  const shown = node.children;
  sources.forEach((block, at) => {
    const signature = `${block.kind}\n${block.source}`;
    const old = shown[at];
    if (old && SIGNATURES.get(old) === signature) return;
    const fresh = build(block);
    SIGNATURES.set(fresh, signature);
    if (old) old.replaceWith(fresh);
    else node.append(fresh);
  });
  while (shown.length > sources.length) node.lastElementChild.remove();
}

const SIGNATURES = new WeakMap(); // the source that each block's node was built from

const FENCE = /^\s{0,3}(```+|~~~+)\s*([\w+#.-]*)/;
const ITEM = /^\s*(?:[-*+]|(\d{1,9})[.)])\s+(.*)$/;
const ITEM_TO_BE = /^\s*(?:[-*+]|\d{1,9}[.)]?)$/; // below a list, the beginning of its next item

/** The blocks of `text`: `{kind, source}`. */
export function blocks(text) {
  const found = [];
  let open = null; // the block that the next line may go on with
  let fence = null;
  for (const line of text.split("\n")) {
    if (fence !== null) {
      if (line.trim().startsWith(fence) && line.trim() === line.trim()[0].repeat(line.trim().length)) fence = null;
      else open.source += open.source === "" ? `${line}` : `\n${line}`;
      if (fence === null) open = null;
      continue;
    }
    const opening = FENCE.exec(line);
    const kind = opening ? "code" : kindOf(line, open);
    if (opening) fence = opening[1];
    if (kind === null) {
      open = null;
    } else if (open && open.kind === kind && kind !== "heading" && !opening) {
      open.source += `\n${line}`;
    } else if (open && kind === "paragraph" && open.kind.endsWith("list") && /^\s{2,}/.test(line)) {
      open.source += `\n${line}`;
    } else {
      open = { kind, source: opening ? "" : line };
      found.push(open);
    }
  }
  return found;
}

function kindOf(line, open) {
  if (line.trim() === "") return null;
  if (open?.kind.endsWith("list") && ITEM_TO_BE.test(line)) return open.kind;
  if (/^#{1,6}\s/.test(line)) return "heading";
  if (/^\s*>/.test(line)) return "quote";
  const item = ITEM.exec(line);
  if (item) return item[1] ? "ordered list" : "list";
  return "paragraph";
}

function build({ kind, source }) {
  if (kind === "code") return element("pre", { tabindex: "0" }, element("code", { text: source }));
  if (kind === "heading") {
    const depth = Math.min(6, /^#+/.exec(source)[0].length + 2); // below the page's own headings
    return inlined(element(`h${depth}`), source.replace(/^#+\s+/, "").replace(/\s#+\s*$/, "").trimEnd());
  }
  if (kind === "quote") return inlined(element("blockquote"), source.replace(/^\s*>\s?/gm, ""));
  if (kind === "paragraph") return inlined(element("p"), source);
  return list(kind, source);
}

function list(kind, source) {
  const first = kind === "ordered list" ? ITEM.exec(source.split("\n")[0])[1] : undefined;
  const node = element(first ? "ol" : "ul", { start: first });
  const items = [];
  for (const line of source.split("\n")) {
    const item = ITEM.exec(line);
    if (item || ITEM_TO_BE.test(line)) items.push(item?.[2] ?? "");
    else items[items.length - 1] += `\n${line.trim()}`;
  }
  node.append(...items.map((item) => inlined(element("li"), item)));
  return node;
}

// What may never be closed has a limit: else each of 40,000 `[` on a line is followed to the end of the line.
const INLINE =
  /(`{1,20})([^`]+?)\1|\*\*([^*\n]+?)\*\*|\*([^*\s][^*\n]*?)\*|\[([^\]\n]{1,500})\]\((https?:\/\/[^\s)]{1,4000})\)/g;

/** `node` with the inline marks of `text` built into it. */
function inlined(node, text) {
  let from = 0;
  for (const match of text.matchAll(INLINE)) {
    if (match.index > from) node.append(text.slice(from, match.index));
    node.append(mark(match));
    from = match.index + match[0].length;
  }
  if (from < text.length) node.append(text.slice(from));
  return node;
}

function mark([, , code, bold, italics, label, url]) {
  if (code !== undefined) return element("code", { text: code });
  if (bold !== undefined) return element("strong", { text: bold });
  if (italics !== undefined) return element("em", { text: italics });
  return element("a", { text: label, href: url, rel: "noopener noreferrer", target: "_blank" });
}
