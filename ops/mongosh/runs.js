// The last runs and what became of them, newest first.
//
//   mongosh "$MONGODB_URL" --quiet ops/mongosh/runs.js
//   SESSION=demo STATE=error LIMIT=50 mongosh "$MONGODB_URL" --quiet ops/mongosh/runs.js
//
// SESSION and STATE narrow it; LIMIT is 20. Seconds: `waited` from the request to a worker, `ran` from there to the
// finish, or until now. Served by the indexes `created` and `session_created`.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const { SESSION, STATE, LIMIT = "20" } = process.env;
const now = Date.now() / 1000;
const seconds = (from, to) => (from ? Number(((to ?? now) - from).toFixed(1)) : null);

const query = { ...(SESSION && { session_id: SESSION }), ...(STATE && { state: STATE }) };
const runs = tailrace.runs.find(query).sort({ created_at: -1 }).limit(Number(LIMIT)).toArray();
console.table(
  runs.map((run) => ({
    created: new Date(run.created_at * 1000).toISOString().slice(0, 19),
    session: run.session_id,
    run: run._id,
    user: run.user,
    state: run.state,
    attempt: run.attempt,
    waited: seconds(run.created_at, run.started_at ?? run.finished_at),
    ran: seconds(run.started_at, run.finished_at),
    error: run.error ?? "",
  })),
);
