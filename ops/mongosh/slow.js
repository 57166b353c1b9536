// The slowest runs: how long each waited for a worker and how long it ran, and the middle and the slow end of all.
//
//   HOURS=24 mongosh "$MONGODB_URL" --quiet ops/mongosh/slow.js
//
// Looks at the runs created in the last HOURS (24), at most 100,000; LIMIT (20) are listed. Waiting long: more workers
// are needed. Served by the index `created`.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const { HOURS = "24", LIMIT = "20" } = process.env;
const since = Date.now() / 1000 - Number(HOURS) * 3600;

const runs = tailrace.runs
  .aggregate([
    { $match: { created_at: { $gte: since }, finished_at: { $ne: null } } },
    { $sort: { created_at: -1 } },
    { $limit: 100_000 },
    {
      $project: {
        session_id: 1,
        agent: 1,
        state: 1,
        waited: { $subtract: [{ $ifNull: ["$started_at", "$finished_at"] }, "$created_at"] },
        ran: { $subtract: ["$finished_at", { $ifNull: ["$started_at", "$finished_at"] }] },
      },
    },
  ])
  .toArray();

const at = (name, share) => {
  const sorted = runs.map((run) => run[name]).sort((a, b) => a - b);
  return Number((sorted[Math.floor(share * (sorted.length - 1))] ?? 0).toFixed(3));
};
print(`${runs.length} runs in ${HOURS} h`);
for (const name of ["waited", "ran"]) {
  print(`${name}: median ${at(name, 0.5)} s, p95 ${at(name, 0.95)} s, p99 ${at(name, 0.99)} s`);
}

const total = (run) => run.waited + run.ran;
console.table(
  runs
    .sort((a, b) => total(b) - total(a))
    .slice(0, Number(LIMIT))
    .map(({ _id, session_id, agent, state, waited, ran }) => ({
      run: _id,
      session: session_id,
      agent,
      state,
      waited: Number(waited.toFixed(2)),
      ran: Number(ran.toFixed(2)),
    })),
);
