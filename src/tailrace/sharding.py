"""Sharding: by what each collection is spread over a cluster, so that a session's log is whole on one shard.

A unique index holds over a sharded collection only if it begins with the shard key, and `_id` only within a
shard. Everything that must be unique here is so within a session, or is named by it. That a session's events
are all on one shard is also what keeps an ordered insert in order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from pymongo import HASHED, IndexModel
from pymongo.errors import OperationFailure

from tailrace.errors import MigrationNeeded
from tailrace.mongo import Database

__all__ = ["KEYS", "UNSHARDED", "commands", "shard", "unsharded"]

# The field whose value is the session's id. By its hash, or by ranges of it where there are zones.
KEYS: Mapping[str, str] = {
    "events": "session_id",
    "messages": "session_id",
    "runs": "session_id",
    "segments": "session_id",
    "sessions": "_id",
    "notes": "_id",
}

# On the database's first shard: a small document a user; what the doctor writes and deletes; one document.
UNSHARDED = frozenset(("slots", "doctor", "archive"))


def commands(database: str, *, ranges: bool) -> list[dict[str, Any]]:
    """The administrative commands that shard each collection; each may be repeated."""
    return [
        {"shardCollection": f"{database}.{name}", "key": {field: 1 if ranges else HASHED}}
        for name, field in KEYS.items()
    ]


async def shard(database: Database, *, ranges: bool) -> list[str]:
    """Shard what is to be sharded, empty or full; the names of the collections.

    By the session id's hash, which spreads any ids from the first moment; with `ranges` by the id itself, for
    zones, where ids begin with the name of a region. The indexes must stand (`ensure_indexes`).

    Raises `MigrationNeeded` when MongoDB is not reached by a mongos, or refuses, as it does for a collection
    that is sharded by another key already.
    """
    hello = await database.client.admin.command("hello")
    if hello.get("msg") != "isdbgrid":
        raise MigrationNeeded(
            "MONGODB_URL leads to a replica set, which cannot be sharded by itself. Give it the addresses of "
            "the cluster's mongos, as in mongodb://mongos1:27017,mongos2:27017/, and repeat this; "
            "or leave --sharded out: docs/scaling.md says when a cluster is worth it."
        )
    for command in commands(database.name, ranges=ranges):
        name = command["shardCollection"].partition(".")[2]
        try:
            if not ranges:  # a collection that is not empty needs the index first; ranges have one
                await database[name].create_indexes([IndexModel([*command["key"].items()])])
            await database.client.admin.command(command)
        except OperationFailure as error:
            raise MigrationNeeded(f"The collection {name!r} cannot be sharded: {error}") from error
    return list(KEYS)


async def unsharded(database: Database) -> Sequence[str]:
    """The collections of a cluster that should be sharded and are not. For a mongos only."""
    names = {f"{database.name}.{name}": name for name in KEYS}
    cursor = database.client["config"]["collections"].find({"_id": {"$in": list(names)}}, {"_id": 1})
    found = {each["_id"] async for each in cursor}
    return [name for namespace, name in names.items() if namespace not in found]
