// Tokens a second of the last runs, and the events that they made.
//
//   LIMIT=20 mongosh "$MONGODB_URL" --quiet ops/mongosh/rate.js
//   SESSION=demo mongosh "$MONGODB_URL" --quiet ops/mongosh/rate.js
//
// `tokens` are those that the model wrote, as it counts them; `rate` is over the whole run, its tools included.
// `first` is the time from the request to the first event of its worker. Served by `created` or `session_created`, and
// in `messages` and `events` by `session_timestamp` and `session_seq`.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const { SESSION, LIMIT = "20" } = process.env;
const digits = (number, places) => (Number.isFinite(number) ? Number(number.toFixed(places)) : null);

const runs = tailrace.runs
  .find({ ...(SESSION && { session_id: SESSION }), state: "success" })
  .sort({ created_at: -1 })
  .limit(Number(LIMIT))
  .toArray();
console.table(
  runs.map((run) => {
    const { session_id, created_at, started_at, finished_at, first_seq, last_seq } = run;
    const [used] = tailrace.messages
      .aggregate([
        { $match: { session_id, timestamp: { $gte: created_at }, run_id: run._id } },
        { $group: { _id: null, tokens: { $sum: "$usage.output_tokens" } } },
      ])
      .toArray();
    const [start] = tailrace.events
      .find({ session_id, seq: { $gt: first_seq, $lte: last_seq }, run_id: run._id })
      .sort({ seq: 1 })
      .limit(1)
      .toArray();
    const ran = finished_at - started_at;
    return {
      run: run._id,
      session: session_id,
      model: run.model ?? "",
      tokens: used?.tokens ?? 0,
      seconds: digits(ran, 2),
      rate: digits((used?.tokens ?? 0) / ran, 1),
      events: last_seq - first_seq + 1,
      first: digits(start?.timestamp - created_at, 3),
    };
  }),
);
