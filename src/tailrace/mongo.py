"""The connection to MongoDB, the indexes, and the one seam between PyMongo's async client and Motor."""

from __future__ import annotations

import asyncio
import inspect
import logging
import math
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar, cast

from pymongo import ASCENDING, AsyncMongoClient, IndexModel
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import (
    BulkWriteError,
    ConnectionFailure,
    ExecutionTimeout,
    OperationFailure,
    PyMongoError,
    WaitQueueTimeoutError,
)
from pymongo.uri_parser import parse_uri

from tailrace.errors import MigrationNeeded, SettingError
from tailrace.settings import Settings

__all__ = [
    "COMPRESSED",
    "INDEXES",
    "Database",
    "connect",
    "end_task",
    "ensure_indexes",
    "is_passing",
    "patiently",
    "ping",
    "settled",
    "start_session",
]

Database = AsyncDatabase[dict[str, Any]]
T = TypeVar("T")
log = logging.getLogger(__name__)

_CLOSE_SECONDS = 3.0
_CANCEL_AGAIN_SECONDS = 0.5
_RETRY_SECONDS = (0.05, 1.0)  # first and longest wait between tries while MongoDB is away

# Measured on three nodes: with the driver's defaults a hung primary stalls writes for 26 s, with these 4-6 s.
# Without a socket timeout a half-dead connection hangs for ever. What the URL says wins.
_CLIENT_OPTIONS: Mapping[str, Any] = {
    "appname": "tailrace",
    "w": "majority",
    "readConcernLevel": "majority",
    "retryWrites": True,
    "heartbeatFrequencyMS": 1_000,
    "connectTimeoutMS": 2_000,
    "socketTimeoutMS": 5_000,  # must stay above the change stream's max_await_time_ms
    "serverSelectionTimeoutMS": 20_000,  # must stay far above the election time
}
_POLLING: Mapping[str, Any] = {"serverMonitoringMode": "poll"}

INDEXES: Mapping[str, tuple[IndexModel, ...]] = {
    "events": (
        IndexModel([("session_id", ASCENDING), ("seq", ASCENDING)], name="session_seq", unique=True),
        IndexModel([("session_id", ASCENDING), ("timestamp", ASCENDING)], name="session_timestamp"),
        IndexModel([("trace_id", ASCENDING)], name="trace", sparse=True),
        IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0),
    ),
    "messages": (
        IndexModel([("session_id", ASCENDING), ("timestamp", ASCENDING)], name="session_timestamp"),
        IndexModel(
            [("session_id", ASCENDING), ("position", ASCENDING)],
            name="session_position",
            unique=True,
            partialFilterExpression={"position": {"$gt": 0}},
        ),
        IndexModel([("parent_id", ASCENDING)], name="parent", sparse=True),
        IndexModel([("trace_id", ASCENDING)], name="trace", sparse=True),
    ),
    "runs": (
        IndexModel([("session_id", ASCENDING), ("state", ASCENDING)], name="session_state"),
        IndexModel([("session_id", ASCENDING), ("created_at", ASCENDING)], name="session_created"),
        IndexModel([("created_at", ASCENDING)], name="created"),  # for a person: ops/mongosh
        IndexModel(
            [("session_id", ASCENDING), ("idempotency_key", ASCENDING)],
            name="one_run_a_key",
            unique=True,
            partialFilterExpression={"idempotency_key": {"$exists": True}},
        ),
        IndexModel(
            [("cancel_after", ASCENDING)],
            name="minding",
            partialFilterExpression={"active": True, "cancel_after": {"$gte": 0}},
        ),
        IndexModel(
            [("state", ASCENDING), ("session_id", ASCENDING), ("created_at", ASCENDING)],
            name="waiting",
            partialFilterExpression={"state": "waiting"},
        ),
        IndexModel(
            [("active", ASCENDING), ("lease_expires_at", ASCENDING)],
            name="active_lease",
            partialFilterExpression={"active": True},
        ),
        IndexModel(
            [("session_id", ASCENDING)],
            name="one_active_run_a_session",
            unique=True,
            partialFilterExpression={"active": True},
        ),
    ),
    "sessions": (
        IndexModel([("owner", ASCENDING), ("updated_at", ASCENDING)], name="owner_updated"),
        # Tombstones, of what was erased: when to sweep, and when there is nothing left to sweep.
        IndexModel([("sweep_at", ASCENDING)], name="sweep", sparse=True),
        IndexModel([("expires_at", ASCENDING)], name="expiry", expireAfterSeconds=0, sparse=True),
    ),
    "segments": (
        IndexModel([("session_id", ASCENDING), ("last", ASCENDING)], name="session_last", unique=True),
    ),
    "slots": (IndexModel([("slots.session_id", ASCENDING)], name="session"),),
}

# Half of what events take on disk, for no more CPU. Chosen when a collection is made: elsewhere it stays.
_ZSTD = {"storageEngine": {"wiredTiger": {"configString": "block_compressor=zstd"}}}
COMPRESSED: Mapping[str, Mapping[str, Any]] = {"events": _ZSTD, "messages": _ZSTD}  # how `create` makes them
_NAMESPACE_EXISTS = 48


@asynccontextmanager
async def connect(settings: Settings, *, polling: bool = False) -> AsyncIterator[Database]:
    """The database that `settings` name, closed on exit. Connecting is lazy: the first operation does it.

    With `polling` a server is asked once a second how it is, on one connection instead of two: half of what
    watching it costs. News of a failover then comes with the first write that fails, or a second late.
    """
    client = _client(settings, _POLLING if polling else {})
    try:
        yield client[settings.mongodb_db]
    finally:
        # Closing says goodbye to a server, which may hang; the process need not.
        # Cut off in one of the driver's locks, it answers with a RuntimeError.
        with suppress(TimeoutError, RuntimeError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                await settled(client.close())


def _client(settings: Settings, more: Mapping[str, Any]) -> AsyncMongoClient[dict[str, Any]]:
    given = {name.lower() for name in parse_uri(settings.mongodb_url, validate=False)["options"]}
    wanted = {**_CLIENT_OPTIONS, **more}
    options = {name: value for name, value in wanted.items() if name.lower() not in given}
    if settings.mongo_driver == "pymongo":
        return AsyncMongoClient(settings.mongodb_url, **options)
    try:
        from motor.motor_asyncio import AsyncIOMotorClient
    except ImportError as error:
        raise SettingError(
            "TAILRACE_MONGO_DRIVER='motor' needs Motor: pip install '.[motor]' in Tailrace's checkout."
        ) from error
    return cast("AsyncMongoClient[dict[str, Any]]", AsyncIOMotorClient(settings.mongodb_url, **options))


async def settled(result: Any) -> Any:
    """The value of a call that PyMongo makes awaitable and Motor does not, or the other way round.

    `close`, `start_session`, `watch` and `aggregate` are all that differ between the two.
    """
    return await result if inspect.isawaitable(result) else result


@asynccontextmanager
async def start_session(database: Database) -> AsyncIterator[AsyncClientSession]:
    """A causally consistent session: what it reads is at least as new as what it, or `advance`, has seen."""
    session = await settled(database.client.start_session(causal_consistency=True))
    async with session:
        yield session


async def ensure_indexes(database: Database) -> dict[str, list[str]]:
    """Make the indexes that are missing; idempotent. Returns the index names by collection.

    Raises `MigrationNeeded` when the server is no replica set (it has no change streams) or an index of the
    same name with other options is in the way.
    """
    hello = await database.client.admin.command("hello")
    if "setName" not in hello and hello.get("msg") != "isdbgrid":
        raise MigrationNeeded(
            "MongoDB runs as a single server without a replica set, and has no change streams. Start it with "
            "--replSet rs0 and run rs.initiate() in mongosh once."
        )
    made: dict[str, list[str]] = {}
    for name, indexes in INDEXES.items():
        try:
            if name in COMPRESSED:
                await _create_compressed(database, name)
            made[name] = await database[name].create_indexes(list(indexes))
        except OperationFailure as error:
            raise MigrationNeeded(f"The indexes of {name!r} cannot be made: {error}") from error
    return made


async def _create_compressed(database: Database, name: str) -> None:
    try:
        await database.command({"create": name, **COMPRESSED[name]})
    except OperationFailure as error:
        # A server with another storage engine compresses as it likes. What else is wrong the indexes tell.
        if error.code != _NAMESPACE_EXISTS:
            log.info(
                "a collection is not compressed by zstd",
                extra={"action": "mongo", "collection": name, "error": str(error)[:200]},
            )


async def ping(database: Database) -> None:
    """Return if the replica set has a primary that answers; raise `PyMongoError` otherwise."""
    hello = await database.client.admin.command("hello")
    if not (hello.get("isWritablePrimary") or hello.get("msg") == "isdbgrid"):
        raise PyMongoError("the server that answers is not the primary")


def is_passing(error: PyMongoError) -> bool:
    """Whether `error` is weather (a failover, a cut connection, no primary yet) and not an answer.

    After it a write may or may not have happened.
    """
    if isinstance(error, (ConnectionFailure, WaitQueueTimeoutError, ExecutionTimeout)):
        return True
    if isinstance(error, BulkWriteError):  # e.g. the primary stepped down before a majority had the batch
        details = error.details or {}
        return bool(details.get("writeConcernErrors")) or any(
            found.get("code") in _PASSING_CODES for found in details.get("writeErrors", ())
        )
    if isinstance(error, OperationFailure):
        return error.code in _PASSING_CODES or error.has_error_label("RetryableWriteError")
    return False


# The retryable codes of the server's "retryable writes" and "retryable reads" specifications, and 43
# (CursorNotFound), 50 (MaxTimeMSExpired), 64 (WriteConcernFailed), 262 (ExceededTimeLimit).
_PASSING_CODES = frozenset(
    (6, 7, 43, 50, 64, 89, 91, 134, 189, 262, 9001, 10_058, 10_107, 11_600, 11_602, 13_435, 13_436)
)


async def patiently(attempt: Callable[[], Awaitable[T]], *, within: float = math.inf) -> T:
    """The result of `attempt`, tried again while MongoDB is only away.

    After `within` seconds an attempt is the last, and what it raises is raised; it is not cut off, which the
    driver's locks take badly. Without it the caller bounds the time.
    """
    delay, longest = _RETRY_SECONDS
    deadline = time.monotonic() + within
    while True:
        try:
            return await attempt()
        except PyMongoError as error:
            if not is_passing(error) or time.monotonic() > deadline:
                raise
            log.warning("MongoDB is away, trying again", extra={"action": "mongo", "error": str(error)[:200]})
        await asyncio.sleep(delay)
        delay = min(delay * 2, longest)


async def end_task(task: asyncio.Task[Any]) -> None:
    """Cancel a task that talks to MongoDB, and return when it has ended; what it raised is dropped.

    More than once if need be: on Python 3.11 `asyncio.wait_for`, in which the driver waits for a server,
    swallows a cancellation that meets its result.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=_CANCEL_AGAIN_SECONDS)
    if not task.cancelled():
        task.exception()
