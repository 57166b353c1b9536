/**
 * A conversation: what a session's events add up to. A pure function of the events, in order.
 *
 *   state = reduce(state, frame)
 *
 * A state is never changed: what an event leaves alone stays the same object, so a view may compare by
 * identity and touch only what is different.
 *
 * items: [{key, kind: "message", role, runId, seq, text, length, reasoning, tools: [...], status}
 *         | {key, kind: "note", level, title, text}]
 * runs:  {run_id: {status: queued|running|success|error|cancelled|timeout|lost, agent, model, seq, trace}}
 */

export const EMPTY = Object.freeze({ items: [], runs: {}, activeRun: null, lastSeq: 0 });

export function reduce(state, { event, seq, data }) {
  if (seq === null) return event === "stream.reset" ? EMPTY : state;
  if (seq <= state.lastSeq) return state;
  const step = STEPS[data.event_type];
  return { ...(step ? step(state, data) : state), lastSeq: seq };
}

const STEPS = {
  run_queued: (state, data) =>
    withRun(state, data, { status: "queued", agent: data.agent, seq: data.seq, ...(data.trace_id && { trace: data.trace_id }) }),
  agent_start: (state, data) => withRun(state, data, { status: "running", model: data.model }),
  message_start: (state, data) => withMessage(state, data, (message) => message),
  message_delta: (state, data) => withMessage(state, data, (message) => withText(message, data)),
  message_complete: completed,
  reasoning_delta: (state, data) => withMessage(state, data, (message) => withReasoning(message, data)),
  tool_args_delta: (state, data) =>
    withTool(state, data, (tool) => ({ ...tool, args: tool.args + (data.delta ?? "") })),
  tool_start: (state, data) => withTool(state, data, (tool) => ({ ...tool, input: data.input, status: "running" })),
  tool_progress: (state, data) => // one of several tools, and it does not say which
    data.tool_call_id ? withTool(state, data, (tool) => ({ ...tool, progress: data.progress })) : state,
  tool_end: (state, data) =>
    withTool(state, data, (tool) => ({ ...tool, output: data.output, status: data.status ?? "success" })),
  run_error: (state, data) =>
    withNote(state, data, { level: "error", title: "The run failed", text: data.message ?? data.code }),
  attempt_superseded: superseded,
  finish: finished,
};

/** The run goes on under another attempt: what the old one wrote no longer counts. */
function superseded(state, data) {
  // Between them may stand what other runs said: one that waits is queued while another one writes.
  const counts = (item) => item.runId !== data.run_id || item.seq < data.from_seq || item.seq > data.to_seq;
  return withRun({ ...state, items: state.items.filter(counts) }, data, { status: "running" });
}

function finished(state, data) {
  const status = data.status ?? "success";
  const run = withRun(state, data, { status });
  const items = run.items.map((item) => (item.runId === data.run_id ? stopped(item, status) : item));
  const ended = { ...run, items };
  const word = ENDINGS[status];
  const told = state.items.some((item) => item.kind === "note" && item.runId === data.run_id);
  return word && !told ? withNote(ended, data, { level: "info", title: word, text: "" }) : ended;
}

const ENDINGS = {
  error: "The run ended with an error.",
  cancelled: "The run was cancelled.",
  timeout: "The run took too long and was ended.",
  lost: "The run was lost: its worker died.",
};

/** An item of a run that is over: nothing in it waits any longer. */
function stopped(item, status) {
  if (item.kind !== "message") return item;
  const waits = (tool) => tool.status === "running" || tool.status === "pending";
  const tools = item.tools.some(waits)
    ? item.tools.map((tool) => (waits(tool) ? { ...tool, status: "stopped" } : tool))
    : item.tools;
  if (item.status !== "streaming" && tools === item.tools) return item;
  return { ...item, tools, status: item.status === "streaming" ? status : item.status };
}

/** A complete message is the whole truth about itself, whatever deltas came before. */
function completed(state, data) {
  if (data.role === "tool") return state; // its tool's `tool_end` has said it
  return withMessage(state, data, (message) => {
    const text = data.content ?? message.text;
    const tools = (data.tool_calls ?? []).reduce(
      (known, call) =>
        known.some((tool) => tool.id === call.id)
          ? known
          : [...known, { ...newTool(call.id, call.name), input: call.args }],
      message.tools,
    );
    const same = text === message.text;
    return {
      ...message,
      tools,
      text,
      length: same ? message.length : codePoints(text),
      status: data.status ?? "complete",
    };
  });
}

/** Text at its offset: what is there already is not added again. */
function withText(message, { delta = "", offset = message.length }) {
  const added = unseen(delta, message.length - offset);
  if (added === "") return message;
  return { ...message, text: message.text + added, length: message.length + codePoints(added) };
}

function withReasoning(message, { delta = "", offset = message.reasoningLength }) {
  const added = unseen(delta, message.reasoningLength - offset);
  if (added === "") return message;
  return {
    ...message,
    reasoning: message.reasoning + added,
    reasoningLength: message.reasoningLength + codePoints(added),
  };
}

/** `delta` without its first `seen` code points. (JavaScript counts UTF-16 units: an emoji is two of them.) */
function unseen(delta, seen) {
  return seen <= 0 ? delta : Array.from(delta).slice(seen).join("");
}

export function codePoints(text) {
  let count = 0;
  for (const _ of text) count += 1;
  return count;
}

function withRun(state, data, change) {
  const runs = { ...state.runs, [data.run_id]: { ...state.runs[data.run_id], ...change } };
  return { ...state, runs, activeRun: firstActive(runs) };
}

/** The id of the run that is active, or null. Those that were queued after it wait for it. */
function firstActive(runs) {
  const active = ({ status }) => status === "queued" || status === "running";
  return Object.keys(runs).find((id) => active(runs[id])) ?? null;
}

/** The state with `change` applied to the message of this event, which is made where it is missing. */
function withMessage(state, data, change) {
  const key = `message:${data.message_id ?? data.tool_call_id}`; // a tool that no message asked for stands alone
  const at = state.items.findLastIndex((item) => item.key === key);
  if (at >= 0) {
    const changed = change(state.items[at]);
    return changed === state.items[at] ? state : { ...state, items: state.items.with(at, changed) };
  }
  if (data.role === "tool") return state;
  return { ...state, items: [...state.items, change(newMessage(key, data))] };
}

function newMessage(key, data) {
  return {
    key,
    kind: "message",
    role: data.role ?? "assistant",
    runId: data.run_id,
    seq: data.seq,
    text: "",
    length: 0, // of the text, in code points
    reasoning: "",
    reasoningLength: 0,
    tools: [],
    status: "streaming",
  };
}

function withTool(state, data, change) {
  return withMessage(state, data, (message) => {
    const at = message.tools.findIndex((tool) => tool.id === data.tool_call_id);
    const tool = at >= 0 ? message.tools[at] : newTool(data.tool_call_id, data.name);
    const changed = change(tool.name ? tool : { ...tool, name: data.name ?? "" });
    return { ...message, tools: at >= 0 ? message.tools.with(at, changed) : [...message.tools, changed] };
  });
}

function newTool(id, name) {
  return { id, name: name ?? "", args: "", input: undefined, progress: undefined, output: undefined, status: "pending" };
}

function withNote(state, data, note) {
  const item = { key: `note:${data.seq}`, kind: "note", runId: data.run_id, seq: data.seq, ...note };
  return { ...state, items: [...state.items, item] };
}
