// What a user's sessions have cost: tokens by session and model, and money where the prices are given.
//
//   OWNER=alice DAYS=30 mongosh "$MONGODB_URL" --quiet ops/mongosh/cost.js
//   OWNER=alice SESSION=demo INPUT=0.15 OUTPUT=0.60 mongosh "$MONGODB_URL" --quiet ops/mongosh/cost.js
//
// INPUT and OUTPUT are the prices of a million tokens. DAYS is 30; SESSION narrows it to one. `model` is what a request
// asked for, empty for the worker's own. Served by `owner_updated`, and in `messages` by `session_timestamp`.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const { OWNER, SESSION, DAYS = "30", INPUT, OUTPUT } = process.env;
if (!OWNER) throw new Error("Whose sessions? OWNER=… mongosh …");
const since = Date.now() / 1000 - Number(DAYS) * 86_400;

const usage = tailrace.sessions
  .aggregate([
    { $match: { owner: OWNER, updated_at: { $gte: since }, ...(SESSION && { _id: SESSION }) } },
    {
      $lookup: {
        from: "messages",
        localField: "_id",
        foreignField: "session_id",
        pipeline: [
          { $match: { timestamp: { $gte: since }, usage: { $ne: null } } },
          { $project: { run_id: 1, usage: 1 } },
        ],
        as: "said",
      },
    },
    { $unwind: "$said" },
    { $lookup: { from: "runs", localField: "said.run_id", foreignField: "_id", as: "run" } },
    {
      $group: {
        _id: { session: "$_id", model: { $ifNull: [{ $first: "$run.model" }, ""] } },
        runs: { $addToSet: "$said.run_id" },
        input: { $sum: "$said.usage.input_tokens" },
        output: { $sum: "$said.usage.output_tokens" },
      },
    },
    { $sort: { output: -1 } },
  ])
  .toArray();

const priced = INPUT !== undefined && OUTPUT !== undefined;
const price = (input, output) => Number(((input * Number(INPUT) + output * Number(OUTPUT)) / 1e6).toFixed(6));
console.table(
  usage.map(({ _id, runs, input, output }) => ({
    session: _id.session,
    model: _id.model,
    runs: runs.length,
    input,
    output,
    ...(priced && { cost: price(input, output) }),
  })),
);
const sum = (name) => usage.reduce((total, each) => total + each[name], 0);
const [input, output] = [sum("input"), sum("output")];
const money = priced ? `, cost ${price(input, output)}` : "";
print(`${OWNER}, ${DAYS} days: ${input} tokens read, ${output} written${money}`);
