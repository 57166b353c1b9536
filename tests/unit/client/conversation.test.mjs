import assert from "node:assert/strict";
import { test } from "node:test";

import { EMPTY, codePoints, reduce } from "../../../src/tailrace/ui/conversation.js";

/** Frames of these events, with places in the log. */
function frames(...events) {
  return events.map((data, at) => {
    const seq = data.seq ?? at + 1;
    return { event: "x", id: `s:${seq}`, seq, data: { run_id: "r1", seq, ...data } };
  });
}
const all = (list, from = EMPTY) => list.reduce(reduce, from);
const delta = (text, offset, message_id = "m1") => ({
  event_type: "message_delta", message_id, delta: text, offset, index: 0, content_type: "text",
});
const START = { event_type: "message_start", message_id: "m1", role: "assistant" };

test("a run becomes a prompt, a tool call and an answer", () => {
  const state = all(
    frames(
      { event_type: "run_queued", agent: "default" },
      { event_type: "agent_start", model: "offline" },
      { event_type: "message_complete", message_id: "u1", role: "user", content: "2+2?", status: "complete" },
      START,
      { event_type: "tool_args_delta", message_id: "m1", tool_call_id: "t1", name: "calculator", delta: '{"x":' },
      { event_type: "tool_args_delta", message_id: "m1", tool_call_id: "t1", delta: '"2+2"}' },
      { event_type: "message_complete", message_id: "m1", role: "assistant", content: "", tool_calls: [{ id: "t1", name: "calculator", args: { x: "2+2" } }] },
      { event_type: "tool_start", message_id: "m1", tool_call_id: "t1", name: "calculator", input: { x: "2+2" } },
      { event_type: "tool_end", message_id: "m1", tool_call_id: "t1", name: "calculator", output: "4", status: "success" },
      { event_type: "message_complete", message_id: "m2", role: "tool", content: "4", tool_call_id: "t1" },
      { ...START, message_id: "m3" },
      delta("It is 4.", 0, "m3"),
      { event_type: "message_complete", message_id: "m3", role: "assistant", content: "It is 4.", status: "complete" },
      { event_type: "agent_end", status: "success" },
      { event_type: "finish", status: "success", last_seq: 15 },
    ),
  );
  assert.deepEqual(state.items.map(({ role, text }) => [role, text]), [["user", "2+2?"], ["assistant", ""], ["assistant", "It is 4."]]);
  const [tool, ...others] = state.items[1].tools;
  assert.deepEqual(others, []);
  assert.deepEqual([tool.name, tool.args, tool.input, tool.output, tool.status], ["calculator", '{"x":"2+2"}', { x: "2+2" }, "4", "success"]);
  assert.equal(state.activeRun, null);
  assert.deepEqual(state.runs.r1, { status: "success", agent: "default", seq: 1, model: "offline" });
});

test("text is placed by code points, so a repeated or overlapping delta adds nothing twice", () => {
  const told = frames(START, delta("🌊🌊", 0), delta("🌊 a", 1), delta(" ab", 2), delta("🌊", 0));
  const { text, length } = all(told).items[0];
  assert.deepEqual([text, length], ["🌊🌊 ab", 5]);
  assert.equal(codePoints("🌊é"), 2);
});

test("an event seen before changes nothing at all", () => {
  const told = frames(START, delta("Hello", 0), delta(" you", 5));
  const state = all(told);
  assert.equal(all(told, state), state);
});

test("what an event leaves alone stays the same object", () => {
  const before = all(frames({ event_type: "message_complete", message_id: "u", role: "user", content: "hi" }, START));
  const after = reduce(before, frames({ ...delta("x", 0), seq: 3 })[0]);
  assert.equal(after.items[0], before.items[0]);
  assert.notEqual(after.items[1], before.items[1]);
});

test("a superseded attempt vanishes and its successor stands alone", () => {
  const state = all(
    frames(
      { event_type: "run_queued" },
      { event_type: "agent_start" },
      { event_type: "message_complete", message_id: "u1", role: "user", content: "hi" },
      START,
      delta("Half an ans", 0),
      { event_type: "attempt_superseded", from_seq: 2, to_seq: 5 },
      { event_type: "message_complete", message_id: "u1", role: "user", content: "hi" },
      { ...START, message_id: "m2" },
      delta("Whole", 0, "m2"),
    ),
  );
  assert.deepEqual(state.items.map(({ text }) => text), ["hi", "Whole"]);
  assert.equal(state.activeRun, "r1");
});

test("a superseded attempt takes nothing of another run with it", () => {
  const state = all(
    frames(
      { event_type: "run_queued", run_id: "r2" },
      { event_type: "message_complete", message_id: "m1", role: "assistant", content: "Of r1." },
      { ...START, run_id: "r2", message_id: "m2" },
      { ...delta("Half", 0, "m2"), run_id: "r2" },
      { event_type: "attempt_superseded", run_id: "r2", from_seq: 2, to_seq: 4 },
    ),
  );
  assert.deepEqual(state.items.map(({ text }) => text), ["Of r1."]);
});

test("of several runs the first that has not ended is the active one", () => {
  const told = frames(
    { event_type: "run_queued" },
    { event_type: "agent_start" },
    { event_type: "run_queued", run_id: "r2" },
    { event_type: "run_queued", run_id: "r3" },
    { event_type: "finish", run_id: "r2", status: "cancelled" },
    { event_type: "finish", status: "cancelled" },
    { event_type: "agent_start", run_id: "r3" },
    { event_type: "finish", run_id: "r3", status: "success" },
  );
  const active = told.map((_, at) => all(told.slice(0, at + 1)).activeRun);
  assert.deepEqual(active, ["r1", "r1", "r1", "r1", "r1", "r3", "r3", null]);
});

test("a failed run says why once, and nothing in it waits any longer", () => {
  const state = all(
    frames(
      { event_type: "agent_start" },
      START,
      { event_type: "tool_start", message_id: "m1", tool_call_id: "t", name: "notes", input: {} },
      { event_type: "run_error", code: "model", message: "No key." },
      { event_type: "finish", status: "error" },
    ),
  );
  assert.deepEqual(state.items.map(({ kind }) => kind), ["message", "note"]);
  assert.equal(state.items[1].text, "No key.");
  assert.deepEqual([state.items[0].status, state.items[0].tools[0].status], ["error", "stopped"]);
});

test("a cancelled run says so without an error", () => {
  const state = all(frames({ event_type: "agent_start" }, { event_type: "finish", status: "cancelled" }));
  assert.deepEqual(state.items.map(({ title }) => title), ["The run was cancelled."]);
});

test("a reset empties the conversation and any place may come next", () => {
  const state = reduce(all(frames(START, delta("old", 0))), { event: "stream.reset", id: null, seq: null, data: {} });
  assert.equal(state, EMPTY);
  assert.equal(all(frames({ ...START, seq: 40 }), state).lastSeq, 40);
});

test("a hole in what is known of a text does not hide what follows", () => {
  assert.equal(all(frames(delta("end", 100))).items[0].text, "end");
});

test("progress that does not say of which tool is nobody's", () => {
  const progress = { event_type: "tool_progress", tool_call_id: "", progress: 0.5 };
  assert.deepEqual(all(frames({ event_type: "run_queued" }, progress)).items, []);
});
