// How long the primary's oplog reaches back, and how the members keep up. A member, or a change stream, that was away
// for longer does not go on by itself. (Readers do: their history is in `events`.)
//
//   mongosh "$MONGODB_URL" --quiet ops/mongosh/oplog.js
//
// Needs a user with the role clusterMonitor, which ops/mongo/initiate.js gives to Tailrace's.

const admin = db.getSiblingDB("admin");
const { members, date } = admin.adminCommand({ replSetGetStatus: 1 });
const { oplog } = admin.adminCommand({ serverStatus: 1, oplog: 1 });
const seconds = (optime) => (optime.ts ?? optime).getHighBits();

const window = seconds(oplog.latestOptime) - seconds(oplog.earliestOptime);
print(`The primary's oplog reaches back ${(window / 3600).toFixed(2)} h.`);
const primary = members.find((member) => member.stateStr === "PRIMARY");
console.table(
  members.map((member) => ({
    member: member.name,
    state: member.stateStr,
    "lag s": primary ? Math.max(0, (primary.optimeDate - member.optimeDate) / 1000) : null,
    "heard of s ago": member.lastHeartbeat ? Number(((date - member.lastHeartbeat) / 1000).toFixed(1)) : 0,
    "up h": Number((member.uptime / 3600).toFixed(1)),
  })),
);
