// A session's events by type: how many, how many bytes, from when to when.
//
//   SESSION=demo mongosh "$MONGODB_URL" --quiet ops/mongosh/types.js
//   SESSION=demo RUN=bd0e5caf… mongosh "$MONGODB_URL" --quiet ops/mongosh/types.js
//
// Served by the index `session_seq`.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const { SESSION, RUN } = process.env;
if (!SESSION) throw new Error("Which session? SESSION=… mongosh …");
const time = (timestamp) => new Date(timestamp * 1000).toISOString().slice(0, 23);

const types = tailrace.events
  .aggregate([
    { $match: { session_id: SESSION, ...(RUN && { run_id: RUN }) } },
    {
      $group: {
        _id: "$event_type",
        events: { $sum: 1 },
        bytes: { $sum: { $bsonSize: "$$ROOT" } },
        first: { $min: "$timestamp" },
        last: { $max: "$timestamp" },
      },
    },
    { $sort: { events: -1 } },
  ])
  .toArray();
console.table(
  types.map(({ _id, events, bytes, first, last }) => ({
    type: _id,
    events,
    bytes,
    first: time(first),
    last: time(last),
  })),
);
