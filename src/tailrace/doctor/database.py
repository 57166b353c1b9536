"""What the log needs of MongoDB: a replica set, its indexes, an oplog long enough, and quick answers."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from statistics import median
from typing import Any
from uuid import uuid4

from pymongo import WriteConcern
from pymongo.errors import OperationFailure

from tailrace.doctor.finding import Finding, bad, fair, good
from tailrace.mongo import INDEXES, Database, settled
from tailrace.settings import Settings
from tailrace.sharding import KEYS, unsharded

__all__ = ["checks"]

OLDEST = (6, 0)  # what the tests run with is newer; change streams with a start time need 4.0
PROBE = "doctor"  # the collection that is written to, and emptied again
WRITES = 10
SLOW_WRITE, SLOW_CHANGE = 0.1, 0.5  # seconds
SKEW_SECONDS = 5.0
OPLOG_HOURS = 24.0  # the window that the tail can come back into after an outage


def checks(settings: Settings, database: Database) -> list[Callable[[], Awaitable[Sequence[Finding]]]]:
    """The checks, in the order in which they make sense."""
    found = (_replica_set, _version, _indexes, _oplog, _writes, _change_stream, _clock)
    return [partial(check, settings, database) for check in found]


async def _replica_set(_: Settings, database: Database) -> list[Finding]:
    hello = await database.client.admin.command("hello")
    if hello.get("msg") == "isdbgrid":
        return [good("replica set", "a sharded cluster, by mongos"), await _sharding(database)]
    if "setName" not in hello:
        advice = "Start it with --replSet rs0 and run rs.initiate() once: change streams need it."
        return [bad("replica set", "MongoDB runs without a replica set", advice)]
    name, members = hello["setName"], len(hello.get("hosts", ()))
    if "primary" not in hello:
        advice = "Start its members: a majority of them elects a primary. rs.status() in mongosh tells which."
        return [bad("replica set", f"{name!r} has no primary", advice)]
    saw = f"{name!r}, {members} members with data, primary {hello['primary']}"
    if members < 3:
        return [fair("replica set", saw, "Run three members: with fewer, the loss of one ends all writes.")]
    return [good("replica set", saw)]


async def _sharding(database: Database) -> Finding:
    if missing := await unsharded(database):
        advice = "Run `tailrace init-db --sharded`: until then all of it is on the database's first shard."
        return fair("sharding", f"not sharded: {', '.join(missing)}", advice)
    return good("sharding", f"{len(KEYS)} collections are sharded")


async def _version(_: Settings, database: Database) -> list[Finding]:
    version = (await database.client.admin.command("buildInfo"))["version"]
    if tuple(int(part) for part in version.split(".")[:2]) < OLDEST:
        return [bad("version", f"MongoDB {version}", f"Upgrade to {OLDEST[0]}.{OLDEST[1]} or newer.")]
    return [good("version", f"MongoDB {version}")]


async def _indexes(settings: Settings, database: Database) -> list[Finding]:
    missing = []
    for name, wanted in INDEXES.items():
        there = await database[name].index_information()
        names = [str(index.document["name"]) for index in wanted]
        missing += [f"{name}.{each}" for each in names if each not in there]
    if missing:
        return [bad("indexes", f"missing: {', '.join(missing)}", "Run `tailrace init-db`.")]
    return [good("indexes", f"all {sum(map(len, INDEXES.values()))} stand")]


async def _oplog(_: Settings, database: Database) -> list[Finding]:
    if (await database.client.admin.command("hello")).get("msg") == "isdbgrid":
        return []  # each shard has its own, which a mongos does not show
    oplog = database.client["local"]["oplog.rs"]
    try:
        first = await oplog.find_one(sort=[("$natural", 1)])
        last = await oplog.find_one(sort=[("$natural", -1)])
        stats = await database.client["local"].command("collStats", "oplog.rs")
    except OperationFailure:
        return [fair("oplog", "it may not be read with this user", "Grant clusterMonitor to see its window.")]
    assert first is not None  # a replica set has written its own beginning
    assert last is not None
    hours = (last["ts"].time - first["ts"].time) / 3600
    size = stats["maxSize"]
    full = stats["size"] / size if size else 1.0
    saw = f"reaches back {hours:.1f} h and is {full:.0%} full of {size / 2**20:,.0f} MiB"
    if full > 0.9 and hours < OPLOG_HOURS:  # else it is short because the deployment is young
        advice = (
            "Make it hold a day: db.adminCommand({replSetResizeOplog: 1, minRetentionHours: 24}). Readers "
            "lose nothing by a shorter one, but a member that was away for longer must copy everything."
        )
        return [fair("oplog", saw, advice)]
    return [good("oplog", saw)]


async def _writes(_: Settings, database: Database) -> list[Finding]:
    probe = database.get_collection(PROBE, write_concern=WriteConcern("majority"))
    took = []
    mark = uuid4().hex
    try:
        for _nth in range(WRITES):
            began = time.perf_counter()
            await probe.insert_one({"mark": mark})
            took.append(time.perf_counter() - began)
    finally:
        await probe.delete_many({"mark": mark})
    saw = f"acknowledged in {median(took) * 1000:.1f} ms, at worst {max(took) * 1000:.1f} ms, of {WRITES}"
    if median(took) > SLOW_WRITE:
        advice = "Every token waits for this. Look at the members' disks, load and distance from one another."
        return [fair("majority writes", saw, advice)]
    return [good("majority writes", saw)]


async def _change_stream(_: Settings, database: Database) -> list[Finding]:
    probe = database[PROBE]
    mark = uuid4().hex
    chosen: list[dict[str, Any]] = [{"$match": {"operationType": "insert", "fullDocument.mark": mark}}]
    stream = await settled(probe.watch(chosen, max_await_time_ms=1_000))
    async with stream:
        await stream.try_next()  # open on the server
        began = time.perf_counter()
        writing = asyncio.create_task(_insert(database, mark))
        try:
            while await stream.try_next() is None:
                pass
        finally:
            await writing
            await probe.delete_many({"mark": mark})
    took = time.perf_counter() - began
    saw = f"an insert came back after {took * 1000:.1f} ms"
    if took > SLOW_CHANGE:
        advice = "Readers see events this late. Look at replication lag (rs.printSecondaryReplicationInfo())."
        return [fair("change stream", saw, advice)]
    return [good("change stream", saw)]


async def _insert(database: Database, mark: str) -> None:
    await database[PROBE].insert_one({"mark": mark})


async def _clock(_: Settings, database: Database) -> list[Finding]:
    before = datetime.now(UTC)
    hello = await database.client.admin.command("hello")
    after = datetime.now(UTC)
    there = hello["localTime"].replace(tzinfo=UTC)
    skew = (there - (before + (after - before) / 2)).total_seconds()
    saw = f"MongoDB's is {abs(skew):.1f} s {'ahead of' if skew > 0 else 'behind'} this machine's"
    if abs(skew) > SKEW_SECONDS:
        advice = "Run NTP on both: the log's order needs no clock, but timestamps and tokens do."
        return [fair("clock", saw, advice)]
    return [good("clock", saw)]
