// Makes one replica set of the members, with a root user and Tailrace's own; finishes what an earlier run of it
// left undone, and changes nothing when all is done.
//
//   mongosh --nodb --norc --quiet ops/mongo/initiate.js
//
// MONGO_MEMBERS             host:port of each member, separated by commas
// MONGO_LOCAL               where the first of them is reached by a loopback address: there, and only while it has
//                           no users, mongod lets somebody without a password make the first one
// MONGO_ROOT_PASSWORD_FILE  the password of the user root
// MONGODB_URL_FILE          Tailrace's URL; names its user and password
// MONGODB_DB                Tailrace's database (tailrace)

const fs = require("fs");

const SET = "rs0";
const PATIENCE_MS = 120_000;
// A killed primary then stalls writes for about 2 s; with MongoDB's defaults it is 11 s.
const TIMING = { electionTimeoutMillis: 2000, heartbeatIntervalMillis: 500 };

const members = process.env.MONGO_MEMBERS.split(",");
const secret = (name) => fs.readFileSync(process.env[name], "utf8").trim();
const rootPassword = secret("MONGO_ROOT_PASSWORD_FILE");
const [, appUser, appPassword] = secret("MONGODB_URL_FILE")
  .match(/^mongodb:\/\/([^:@/]+):([^@]+)@/)
  .map(decodeURIComponent);
const database = process.env.MONGODB_DB || "tailrace";
// Monitoring is for `tailrace doctor` and for ops/mongosh: the oplog's window, who is primary.
const appRoles = [{ role: "readWrite", db: database }, { role: "clusterMonitor", db: "admin" }];

function patiently(what, attempt) {
  const deadline = Date.now() + PATIENCE_MS;
  for (;;) {
    let why = "not yet";
    try {
      const found = attempt();
      if (found) return found;
    } catch (error) {
      why = error.message;
    }
    if (Date.now() > deadline) throw new Error(`${what}: ${why}`);
    sleep(200);
  }
}

const opened = (url) => new Mongo(`${url}&serverSelectionTimeoutMS=2000`).getDB("admin");
const direct = (host) => opened(`mongodb://${host}/?directConnection=true`);

function connected(user, password) {
  const credentials = `${encodeURIComponent(user)}:${encodeURIComponent(password)}`;
  return opened(`mongodb://${credentials}@${members}/?replicaSet=${SET}&authSource=admin`);
}

function mayConnect(user, password) {
  try {
    connected(user, password);
    return true;
  } catch (error) {
    return false;
  }
}

function did(answer) {
  if (!answer.ok) throw new Error(`${answer.codeName}: ${answer.errmsg}`);
  return answer;
}

function initiate(local) {
  if (local.hello().setName) return;
  // A first member that has lost its data gets it, and the set's configuration, from the others: a second set must
  // not begin beside theirs. Nobody knows before all have answered.
  const rest = members.slice(1).map((host) => patiently(host, () => direct(host).hello()));
  if (rest.some((hello) => hello.setName)) return;
  // Alone at first: then it is the primary for sure, and the first user can be made on it.
  const config = { _id: SET, settings: TIMING, members: [{ _id: 0, host: members[0] }] };
  did(local.adminCommand({ replSetInitiate: config }));
  print(`initiated ${SET}`);
}

function makeRoot(local) {
  if (mayConnect("root", rootPassword)) return;
  patiently("the user root, with the password in MONGO_ROOT_PASSWORD_FILE", () => {
    if (mayConnect("root", rootPassword)) return true;
    if (local.hello().isWritablePrimary) local.createUser({ user: "root", pwd: rootPassword, roles: ["root"] });
    return false;
  });
  print("made the user root");
}

function addMembers(admin) {
  for (const host of members) {
    patiently(`adding ${host}`, () => {
      const { config } = did(admin.adminCommand({ replSetGetConfig: 1 }));
      if (config.members.some((member) => member.host === host)) return true;
      const _id = 1 + Math.max(...config.members.map((member) => member._id));
      config.version += 1;
      config.members.push({ _id, host });
      did(admin.adminCommand({ replSetReconfig: config }));
      print(`added ${host}`);
      return true;
    });
  }
  patiently("all members", () => {
    const { members: found, votingMembersCount } = did(admin.adminCommand({ replSetGetStatus: 1 }));
    const ready = found.filter((member) => ["PRIMARY", "SECONDARY"].includes(member.stateStr));
    return ready.length === members.length && votingMembersCount === members.length; // a new one votes a little later
  });
}

function makeApp(admin) {
  const user = admin.getUser(appUser);
  const roles = (of) => JSON.stringify(of.map(({ role, db }) => `${db}.${role}`).sort());
  if (user && roles(user.roles) === roles(appRoles) && mayConnect(appUser, appPassword)) return;
  if (user) admin.updateUser(appUser, { pwd: appPassword, roles: appRoles });
  else admin.createUser({ user: appUser, pwd: appPassword, roles: appRoles });
  print(`${user ? "changed" : "made"} the user ${appUser}`);
}

const local = patiently("the first member", () => direct(process.env.MONGO_LOCAL || "127.0.0.1:27017"));
initiate(local);
makeRoot(local);
const admin = patiently("a primary", () => connected("root", rootPassword));
addMembers(admin);
makeApp(admin);
print(`${SET} stands: ${members.join(", ")}`);
