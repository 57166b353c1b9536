// What the data takes: each collection's documents and bytes, and each index's bytes and uses.
//
//   mongosh "$MONGODB_URL" --quiet ops/mongosh/storage.js
//
// `disk` is compressed; `free` is in the files and will be used again. `uses` counts since the server that answers, the
// primary, started; a secondary counts its own.

const tailrace = db.getSiblingDB(process.env.MONGODB_DB || "tailrace");
const mib = (bytes) => Number((bytes / 2 ** 20).toFixed(2));
const names = tailrace.getCollectionNames().filter((name) => !name.startsWith("system.")).sort();

console.table(
  names.map((collection) => {
    const [{ storageStats: stats }] = tailrace[collection].aggregate([{ $collStats: { storageStats: {} } }]).toArray();
    return {
      collection,
      documents: stats.count,
      "bytes a document": Math.round(stats.avgObjSize ?? 0),
      "data MiB": mib(stats.size),
      "disk MiB": mib(stats.storageSize),
      "free MiB": mib(stats.freeStorageSize),
      "indexes MiB": mib(stats.totalIndexSize),
    };
  }),
);
console.table(
  names.flatMap((collection) => {
    const [{ storageStats: stats }] = tailrace[collection].aggregate([{ $collStats: { storageStats: {} } }]).toArray();
    const uses = tailrace[collection].aggregate([{ $indexStats: {} }, { $sort: { name: 1 } }]).toArray();
    return uses.map(({ name, accesses }) => ({
      collection, index: name, "size MiB": mib(stats.indexSizes[name]), uses: Number(accesses.ops),
    }));
  }),
);
