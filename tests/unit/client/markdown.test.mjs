import assert from "node:assert/strict";
import { test } from "node:test";

import { blocks } from "../../../src/tailrace/ui/markdown.js";

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
