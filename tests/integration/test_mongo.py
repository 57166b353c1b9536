"""The connection and the indexes, against a real MongoDB over both drivers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient
from pymongo.errors import AutoReconnect
from tests.e2e.stack import eventually, until

from tailrace.child import Child, free_port
from tailrace.embedded import Mongod
from tailrace.errors import MigrationNeeded
from tailrace.mongo import COMPRESSED, Database, connect, ensure_indexes, patiently, ping
from tailrace.settings import Settings

INDEXES = {
    "events": {
        "_id_": {"key": {"_id": 1}},
        "session_seq": {"key": {"session_id": 1, "seq": 1}, "unique": True},
        "session_timestamp": {"key": {"session_id": 1, "timestamp": 1}},
        "trace": {"key": {"trace_id": 1}, "sparse": True},
        "expiry": {"key": {"expires_at": 1}, "expireAfterSeconds": 0},
    },
    "messages": {
        "_id_": {"key": {"_id": 1}},
        "session_timestamp": {"key": {"session_id": 1, "timestamp": 1}},
        "session_position": {
            "key": {"session_id": 1, "position": 1},
            "unique": True,
            "partialFilterExpression": {"position": {"$gt": 0}},
        },
        "parent": {"key": {"parent_id": 1}, "sparse": True},
        "trace": {"key": {"trace_id": 1}, "sparse": True},
    },
    "runs": {
        "_id_": {"key": {"_id": 1}},
        "session_state": {"key": {"session_id": 1, "state": 1}},
        "session_created": {"key": {"session_id": 1, "created_at": 1}},
        "created": {"key": {"created_at": 1}},
        "one_run_a_key": {
            "key": {"session_id": 1, "idempotency_key": 1},
            "unique": True,
            "partialFilterExpression": {"idempotency_key": {"$exists": True}},
        },
        "minding": {
            "key": {"cancel_after": 1},
            "partialFilterExpression": {"active": True, "cancel_after": {"$gte": 0}},
        },
        "waiting": {
            "key": {"state": 1, "session_id": 1, "created_at": 1},
            "partialFilterExpression": {"state": "waiting"},
        },
        "active_lease": {
            "key": {"active": 1, "lease_expires_at": 1},
            "partialFilterExpression": {"active": True},
        },
        "one_active_run_a_session": {
            "key": {"session_id": 1},
            "unique": True,
            "partialFilterExpression": {"active": True},
        },
    },
    "sessions": {
        "_id_": {"key": {"_id": 1}},
        "owner_updated": {"key": {"owner": 1, "updated_at": 1}},
        "sweep": {"key": {"sweep_at": 1}, "sparse": True},
        "expiry": {"key": {"expires_at": 1}, "expireAfterSeconds": 0, "sparse": True},
    },
    "segments": {
        "_id_": {"key": {"_id": 1}},
        "session_last": {"key": {"session_id": 1, "last": 1}, "unique": True},
    },
    "slots": {
        "_id_": {"key": {"_id": 1}},
        "session": {"key": {"slots.session_id": 1}},
    },
}

both_drivers = pytest.mark.parametrize("mongo_driver", ["pymongo", "motor"])


async def indexes(database: Database) -> dict[str, dict[str, object]]:
    found: dict[str, dict[str, object]] = {}
    for collection in INDEXES:
        cursor = await database.command("listIndexes", collection)
        found[collection] = {
            index["name"]: {name: value for name, value in index.items() if name not in ("v", "name")}
            for index in cursor["cursor"]["firstBatch"]
        }
    return found


@both_drivers
async def test_indexes_are_exactly_these_however_often_they_are_made(database: Database) -> None:
    assert await indexes(database) == INDEXES
    await ensure_indexes(database)
    assert await indexes(database) == INDEXES


@both_drivers
async def test_what_grows_is_compressed_by_zstd(database: Database) -> None:
    for name in INDEXES:
        found = await database.command("collStats", name)
        expected = "zstd" if name in COMPRESSED else "snappy"
        assert f"block_compressor={expected}" in found["wiredTiger"]["creationString"]
    assert COMPRESSED.keys() == {"events", "messages"}


async def test_a_collection_that_is_compressed_otherwise_stays_so(settings: Settings) -> None:
    async with connect(settings) as database:
        await database["events"].insert_one({"_id": "s1:1", "session_id": "s1", "seq": 1})
        await ensure_indexes(database)
        assert await indexes(database) == INDEXES
        found = await database.command("collStats", "events")
        assert "block_compressor=snappy" in found["wiredTiger"]["creationString"]


async def test_index_of_the_same_name_with_other_options_is_refused(settings: Settings) -> None:
    async with connect(settings) as database:
        await database["events"].create_index([("trace_id", -1)], name="trace")
        with pytest.raises(MigrationNeeded, match="'events'"):
            await ensure_indexes(database)


@both_drivers
async def test_primary_answers_a_ping(database: Database) -> None:
    await ping(database)


async def test_patience_with_an_end_raises_what_the_last_attempt_did() -> None:
    tries = 0

    async def attempt() -> None:
        nonlocal tries
        tries += 1
        raise AutoReconnect(str(tries))

    with pytest.raises(AutoReconnect) as caught:
        await patiently(attempt, within=0.2)
    assert str(caught.value) == str(tries)
    assert tries > 1


@both_drivers
async def test_a_polling_client_watches_the_server_on_one_connection_less(
    settings: Settings, mongo: MongoClient[dict[str, Any]]
) -> None:
    def named(name: str) -> Settings:
        separator = "&" if "?" in settings.mongodb_url else "/?"
        return msgspec.structs.replace(
            settings, mongodb_url=f"{settings.mongodb_url}{separator}appName={name}"
        )

    def connections(name: str) -> int:
        asked: list[dict[str, Any]] = [
            {"$currentOp": {"allUsers": True, "idleConnections": True}},
            {"$match": {"appName": name}},
        ]
        return len(list(mongo.admin.aggregate(asked)))

    async with connect(named("polls"), polling=True) as polling, connect(named("listens")) as listening:
        await ping(polling)
        await ping(listening)
        await until(lambda: connections("listens") == 3)  # for commands, for news, and to measure the way
        assert connections("polls") == 2


async def test_mongod_without_a_replica_set_is_refused(settings: Settings, tmp_path: Path) -> None:
    port = free_port()
    child = Child("mongod", alone(tmp_path, port), log=tmp_path / "log")
    child.start()
    try:
        eventually(lambda: any("Waiting for connections" in line for line in child.tail(100)))
        alone_settings = msgspec.structs.replace(settings, mongodb_url=f"mongodb://127.0.0.1:{port}")
        async with connect(alone_settings) as database:
            with pytest.raises(MigrationNeeded, match="--replSet"):
                await ensure_indexes(database)
    finally:
        child.stop()


def alone(place: Path, port: int) -> list[str]:
    """The command line of a mongod without a replica set."""
    (place / "data").mkdir()
    server = Mongod(place / "data", log=place / "log", port=port)
    return [option for option in server.argv() if not option.startswith("--replSet")]
