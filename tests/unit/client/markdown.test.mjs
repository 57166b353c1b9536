import assert from "node:assert/strict";
import { test } from "node:test";

import { blocks, showMarkdown } from "../../../src/tailrace/ui/markdown.js";

/** As much of an element as Markdown needs. */
class Element {
  children = [];
  constructor(tag) {
    this.tag = tag;
  }
  setAttribute(name, value) {
    this[name] = value;
  }
  append(...children) {
    this.children.push(...children);
  }
  set textContent(text) {
    this.children = [text];
  }
  get textContent() {
    return this.children.map((child) => child.textContent ?? child).join("");
  }
}
globalThis.document = { createElement: (tag) => new Element(tag) };

/** The children of the paragraph that `text` becomes: strings, and `[tag, text, href]`. */
function inline(text) {
  const node = new Element("div");
  showMarkdown(node, text);
  assert.deepEqual(node.children.map(({ tag }) => tag), ["p"]);
  return node.children[0].children.map((child) => (child.tag ? [child.tag, child.textContent, child.href] : child));
}

const kinds = (text) => blocks(text).map(({ kind, source }) => [kind, source]);

test("the blocks of a text", () => {
  assert.deepEqual(kinds("# Top\none\ntwo\n\n- a\n- b\n  more\n1. x\n> q\n```js\nlet a\n\n- no item\n```\nend"), [
    ["heading", "# Top"],
    ["paragraph", "one\ntwo"],
    ["list", "- a\n- b\n  more"],
    ["ordered list", "1. x"],
    ["quote", "> q"],
    ["code", "let a\n\n- no item"],
    ["paragraph", "end"],
  ]);
});

test("code that is still growing is code already", () => {
  assert.deepEqual(kinds("```\na = 1\n"), [["code", "a = 1\n"]]);
  assert.deepEqual(kinds("```"), [["code", ""]]);
});

test("a growing text changes its last blocks only", () => {
  const text = "First.\n\n- one\n- two\n\n```\ncode\n```\n\nThe end of it.";
  for (let at = 1; at <= text.length; at += 1) {
    const [now, next] = [kinds(text.slice(0, at)), kinds(text.slice(0, at + 1))];
    assert.deepEqual(next.slice(0, Math.max(0, now.length - 1)), now.slice(0, -1), `after ${at}`);
  }
});

test("the marks within a line", () => {
  assert.deepEqual(inline("a `b` ``c`` **d** *e* [f](https://g.example/h) [i](javascript:alert(1)) [j"), [
    "a ",
    ["code", "b", undefined],
    " ",
    ["code", "c", undefined],
    " ",
    ["strong", "d", undefined],
    " ",
    ["em", "e", undefined],
    " ",
    ["a", "f", "https://g.example/h"],
    " [i](javascript:alert(1)) [j",
  ]);
});

test("a link's text and address have a limit each", () => {
  const link = (text, path) => `[${text}](https://g.example/${path})`;
  assert.deepEqual(inline(link("a".repeat(500), "")), [["a", "a".repeat(500), "https://g.example/"]]);
  for (const text of [link("a".repeat(501), ""), link("a", "b".repeat(4_001))]) assert.deepEqual(inline(text), [text]);
});

test("many marks that nothing closes are text", () => {
  for (const text of ["[".repeat(40_000), `x${"`".repeat(40_000)}`, "[a](http://b".repeat(3_000)]) {
    assert.deepEqual(inline(text), [text]);
  }
});
