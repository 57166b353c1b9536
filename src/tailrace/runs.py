"""A run: one prompt, worked on by one agent, and its life from queued to finished."""

from __future__ import annotations

import time
from hashlib import sha256
from typing import Any, Literal
from uuid import uuid4

import msgspec
from pymongo import ASCENDING, DESCENDING, ReturnDocument
from pymongo.errors import DuplicateKeyError

from tailrace.documents import from_document, to_document
from tailrace.errors import RunConflict
from tailrace.mongo import Database, settled

__all__ = [
    "LEASE_SECONDS",
    "FinishStatus",
    "Run",
    "RunState",
    "Runs",
    "lease_for",
    "new_run_id",
    "root_observation",
]

FinishStatus = Literal["success", "error", "cancelled", "timeout", "lost"]
RunState = Literal["waiting", "queued", "running", "success", "error", "cancelled", "timeout", "lost"]


LEASE_SECONDS = 8.0  # without a sign of life from its worker, then a run counts as lost


def lease_for(seconds: float) -> dict[str, Any]:
    """For `$set` in an update pipeline: a lease from now on, by the database's clock."""
    return {"lease_expires_at": {"$add": ["$$NOW", int(seconds * 1000)]}}


def new_run_id() -> str:
    """A run's id: 32 hexadecimal digits, which are a valid Langfuse trace id as well."""
    return uuid4().hex


def root_observation(run_id: str, attempt: int) -> str:
    """The Langfuse observation of an attempt, known before it begins: 16 hexadecimal digits."""
    return sha256(f"{run_id}:{attempt}".encode()).hexdigest()[:16]


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prompt and what became of it."""

    run_id: str  # `_id` in MongoDB
    session_id: str
    user: str  # who asked; the session's owner
    agent: str  # the registry's name of the agent
    state: RunState
    created_at: float  # Unix seconds
    active: bool  # queued or running, not waiting; one a session, held by a unique partial index
    attempt: int  # counts from 1; grows when a lost run is tried again, and when it is handed over
    prompt: str = ""
    content_parts: list[dict[str, Any]] = msgspec.field(default_factory=list)
    model: str | None = None  # overrides the worker's model
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    trace_id: str | None = None  # set where tracing is configured
    handovers: int = 0  # of its attempts, those that a worker gave up because it had to leave
    worker: str | None = None  # who runs it
    started_at: float | None = None  # Unix seconds
    finished_at: float | None = None  # Unix seconds
    retention_seconds: float | None = None  # of its events; 0 for ever, or until they are archived
    behind_seq: int = 0  # the log's end when it was stored: all its events stand behind that
    first_seq: int | None = None  # its first event in the session's log
    first_digest: str | None = None  # the digest behind that
    last_seq: int | None = None  # its `finish`
    error: str | None = None  # what went wrong, for a person
    cancel_requested: bool = False  # somebody wants it to end
    cancel_after: float | None = None  # seconds without any reader, then it is cancelled; never if None
    idempotency_key: str | None = None  # of the request; unique in the session
    request_hash: str | None = None  # SHA-256 of the request, to tell whether a key is used for another


class Runs:
    """The `runs` collection."""

    def __init__(self, database: Database) -> None:
        self._collection = database["runs"]

    async def create(self, run: Run) -> None:
        """Store a queued run before its job is enqueued.

        Raises `RunConflict` when the session has an active run.
        """
        document = {name: {"$literal": value} for name, value in to_document(run).items() if name != "_id"}
        try:
            # An insert that may use the database's clock.
            await self._collection.update_one(
                _own(run),
                [{"$set": {**document, **lease_for(LEASE_SECONDS), "last_reader_at": "$$NOW"}}],
                upsert=True,
            )
        except DuplicateKeyError as error:
            active = await self.active(run.session_id)
            raise RunConflict(active.run_id if active else None) from error

    async def get(self, session_id: str, run_id: str) -> Run | None:
        """The run, if this session has it."""
        return _run(await self._collection.find_one({"_id": run_id, "session_id": session_id}))

    async def by_key(self, session_id: str, idempotency_key: str) -> Run | None:
        """The run that a request with this key made."""
        query = {"session_id": session_id, "idempotency_key": idempotency_key}
        return _run(await self._collection.find_one(query))

    async def promote(self, session_id: str) -> Run | None:
        """Make the session's oldest waiting run its active one; None when none waits or one is active."""
        # Nobody looked for its readers while it waited.
        update = {"state": "queued", "active": True, "last_reader_at": "$$NOW", **lease_for(LEASE_SECONDS)}
        try:
            found = await self._collection.find_one_and_update(
                {"session_id": session_id, "state": "waiting"},
                [{"$set": update}],
                sort=[("created_at", ASCENDING)],
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            return None
        return _run(found)

    async def unfinished(self) -> dict[RunState, int]:
        """How many runs wait, are queued and are running, in all sessions."""
        found = await settled(
            self._collection.aggregate(
                [
                    {"$match": {"$or": [{"active": True}, {"state": "waiting"}]}},
                    {"$group": {"_id": "$state", "count": {"$sum": 1}}},
                ]
            )
        )
        counts = {each["_id"]: int(each["count"]) for each in await found.to_list(None)}
        return {"waiting": 0, "queued": 0, "running": 0, **counts}

    async def stalled(self, *, limit: int) -> list[str]:
        """Up to `limit` sessions in which runs wait and none is active."""
        same = {"$and": [{"$eq": ["$session_id", "$$waiting"]}, {"$eq": ["$active", True]}]}
        active = {
            "from": self._collection.name,
            "let": {"waiting": "$_id"},
            "pipeline": [{"$match": {"$expr": same, "active": True}}],
            "as": "active",
        }
        found = await settled(
            self._collection.aggregate(
                [
                    {"$match": {"state": "waiting"}},
                    {"$group": {"_id": "$session_id"}},
                    {"$lookup": active},
                    {"$match": {"active": []}},
                    {"$limit": limit},
                ]
            )
        )
        return [str(each["_id"]) for each in await found.to_list(None)]

    async def active(self, session_id: str) -> Run | None:
        """The session's queued or running run."""
        return _run(await self._collection.find_one({"session_id": session_id, "active": True}))

    async def page(self, session_id: str, *, before: float, limit: int) -> list[Run]:
        """Up to `limit` runs created before `before` (Unix seconds), newest first."""
        query = {"session_id": session_id, "created_at": {"$lt": before}}
        cursor = self._collection.find(query).sort("created_at", DESCENDING).limit(limit)
        return [run for found in await cursor.to_list(None) if (run := _run(found))]

    async def start(self, session_id: str, run_id: str, *, worker: str) -> tuple[Run, float | None] | None:
        """Take a queued run for this worker; None when it is not there, another took it, or it has ended.

        Returns it as it is now, and when an attempt before this one began, if there was one (Unix seconds).
        """
        started_at = time.time()
        update = {
            "state": "running",
            "worker": {"$literal": worker},
            "started_at": started_at,
            **lease_for(LEASE_SECONDS),
        }
        queued = _run(
            await self._collection.find_one_and_update(
                {"_id": run_id, "session_id": session_id, "state": "queued"},
                [{"$set": update}],
                return_document=ReturnDocument.BEFORE,
            )
        )
        if queued is None:
            return None
        run = msgspec.structs.replace(queued, state="running", worker=worker, started_at=started_at)
        return run, queued.started_at

    async def owns(self, run: Run) -> bool:
        """Whether this attempt of `run` is still the one that may write for it: the fence of `Writer`."""
        query = {**_own(run), "attempt": run.attempt, "finished_at": None}
        return await self._collection.find_one(query, {"_id": 1}) is not None

    async def request_cancel(self, session_id: str, run_id: str | None = None) -> Run | None:
        """Ask for the end of the session's active run; None when there is none, or it is not `run_id`.

        Repeating it is harmless.
        """
        meant = {} if run_id is None else {"_id": run_id}
        found = await self._collection.find_one_and_update(
            {"session_id": session_id, "active": True, **meant},
            [
                {
                    "$set": {
                        "cancel_requested": True,
                        "cancel_requested_at": {"$ifNull": ["$cancel_requested_at", "$$NOW"]},
                    }
                }
            ],
            return_document=ReturnDocument.AFTER,
        )
        return _run(found)

    async def began(self, run: Run) -> None:
        """Keep where the run's events begin, its `first_seq`, and their digest so far."""
        began = {"first_seq": run.first_seq, "first_digest": run.first_digest}
        await self._collection.update_one(_own(run), {"$set": began})

    async def end(self, run: Run, *, status: FinishStatus, last_seq: int, error: str | None) -> bool:
        """Close the run after its `finish` was written; False when this attempt had lost it."""
        found = await self._collection.update_one(
            {**_own(run), "attempt": run.attempt, "active": True},
            {
                "$set": {
                    "state": status,
                    "active": False,
                    "finished_at": time.time(),
                    "last_seq": last_seq,
                    "error": error,
                }
            },
        )
        return found.modified_count == 1


def _own(run: Run) -> dict[str, Any]:
    # With the session, by which a sharded cluster knows where the run is.
    return {"_id": run.run_id, "session_id": run.session_id}


def _run(found: dict[str, Any] | None) -> Run | None:
    return None if found is None else from_document(Run, found)
