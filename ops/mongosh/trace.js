// Everything of a Langfuse trace: its run, its messages and its events.
//
//   TRACE=0af7651916cd43dd8448eb211c80319c mongosh "$MONGODB_URL" --quiet ops/mongosh/trace.js
//
// Served by the index `trace` of `events` and of `messages`; events expire, messages do not.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const trace_id = process.env.TRACE;
if (!trace_id) throw new Error("Which trace? TRACE=… mongosh …");

const messages = tailrace.messages.find({ trace_id }).sort({ timestamp: 1 }).toArray();
const events = tailrace.events
  .aggregate([
    { $match: { trace_id } },
    {
      $group: {
        _id: { run: "$run_id", attempt: "$attempt", type: "$event_type", observation: "$observation_id" },
        session: { $first: "$session_id" },
        events: { $sum: 1 },
        from: { $min: "$seq" },
        to: { $max: "$seq" },
      },
    },
    { $sort: { from: 1 } },
  ])
  .toArray();

const ids = [...new Set([...messages.map((message) => message.run_id), ...events.map((event) => event._id.run)])];
for (const run of tailrace.runs.find({ _id: { $in: ids } })) {
  print(`run ${run._id} of session ${run.session_id}, user ${run.user}, agent ${run.agent}: ${run.state}`);
}
for (const { role, status, content } of messages) {
  print(`${role}${status ? ` (${status})` : ""}: ${(content ?? "").slice(0, 160)}`);
}
console.table(
  events.map(({ _id, events: count, from, to }) => ({
    attempt: _id.attempt,
    type: _id.type,
    events: count,
    "from seq": from,
    "to seq": to,
    observation: _id.observation ?? "",
  })),
);
