// What runs or waits now, and whether anybody holds it: a run whose lease has run out is taken over within seconds, so
// one that stays is a fault.
//
//   mongosh "$MONGODB_URL" --quiet ops/mongosh/hanging.js
//
// `lease` is what is left of it in seconds, by the database's clock: while a worker runs it, it is renewed every 2 s to
// 8 s; while it is queued, to 10 s; below 0, nobody holds it. Waiting runs are behind another of their session. Served
// by `active_lease` and `waiting`.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const since = (at) => ({ $round: [{ $subtract: [{ $divide: [{ $toLong: "$$NOW" }, 1000] }, at] }, 1] });

const runs = ["active", "waiting"].flatMap((kind) =>
  tailrace.runs
    .aggregate([
      { $match: kind === "active" ? { active: true } : { state: "waiting" } },
      { $sort: kind === "active" ? { active: 1, lease_expires_at: 1 } : { state: 1, session_id: 1, created_at: 1 } },
      { $limit: 200 },
      {
        $project: {
          run: "$_id",
          _id: 0,
          session: "$session_id",
          state: 1,
          attempt: 1,
          age: since("$created_at"),
          lease: { $round: [{ $divide: [{ $subtract: ["$lease_expires_at", "$$NOW"] }, 1000] }, 1] },
          cancelled: { $ifNull: ["$cancel_requested", false] },
          worker: { $ifNull: ["$worker", ""] },
        },
      },
    ])
    .toArray(),
);
const held = runs.filter((run) => run.state !== "waiting");
const lost = held.filter((run) => run.lease === null || run.lease < 0);
print(`${held.length} active, ${runs.length - held.length} waiting, ${lost.length} that nobody holds`);
console.table(runs.map((run) => ({ ...run, lease: run.state === "waiting" ? null : run.lease })));
