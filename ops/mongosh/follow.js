// What a session does, as it does it: one line an event, the text of an answer as it arrives. Ctrl-C ends it.
//
//   SESSION=demo mongosh "$MONGODB_URL" --quiet ops/mongosh/follow.js
//
// One change stream over the whole collection, filtered by the server; it begins now. What was before is in the log:
// tailrace tail.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const session = process.env.SESSION;
if (!session) throw new Error("Which session? SESSION=… mongosh …");

const wanted = { operationType: "insert", "fullDocument.session_id": session };
const stream = tailrace.events.watch([{ $match: wanted }, { $project: { fullDocument: 1 } }]);
print(`following ${session}`);

while (!stream.isClosed()) {
  const change = stream.tryNext();
  if (!change) continue; // nothing for a second; the server held the question that long
  const { seq, timestamp, run_id, event_type, data } = change.fullDocument;
  const time = new Date(timestamp * 1000).toISOString().slice(11, 23);
  print(`${time} ${String(seq).padStart(6)} ${run_id.slice(0, 8)} ${event_type} ${JSON.stringify(data).slice(0, 160)}`);
}
