"""A run: one prompt, worked on by one agent, and its life from queued to finished."""

from __future__ import annotations

import time
from typing import Any, Literal
from uuid import uuid4

import msgspec
from pymongo import DESCENDING, ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from tailrace.documents import from_document, to_document
from tailrace.errors import RunConflict

__all__ = ["FinishStatus", "Run", "RunState", "Runs", "new_run_id"]

FinishStatus = Literal["success", "error", "cancelled", "timeout", "lost"]
RunState = Literal["queued", "running", "success", "error", "cancelled", "timeout", "lost"]


def new_run_id() -> str:
    """A run's id: 32 hexadecimal digits, which are a valid Langfuse trace id as well."""
    return uuid4().hex


class Run(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One prompt and what became of it."""

    run_id: str  # `_id` in MongoDB
    session_id: str
    user: str  # who asked; the session's owner
    agent: str  # the registry's name of the agent
    state: RunState
    created_at: float  # Unix seconds
    active: bool  # queued or running; one a session, held by a unique partial index
    attempt: int  # counts from 1; grows when a lost run is tried again
    prompt: str = ""
    content_parts: list[dict[str, Any]] = msgspec.field(default_factory=list)
    model: str | None = None  # overrides the worker's model
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    trace_id: str | None = None  # set where tracing is configured
    worker: str | None = None  # who runs it
    started_at: float | None = None  # Unix seconds
    finished_at: float | None = None  # Unix seconds
    first_seq: int | None = None  # its first event in the session's log
    last_seq: int | None = None  # its `finish`
    error: str | None = None  # what went wrong, for a person


class Runs:
    """The `runs` collection."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._collection = database["runs"]

    async def create(self, run: Run) -> None:
        """Store a queued run before its job is enqueued.

        Raises `RunConflict` when the session has an active run.
        """
        try:
            await self._collection.insert_one(to_document(run))
        except DuplicateKeyError as error:
            active = await self.active(run.session_id)
            raise RunConflict(active.run_id if active else None) from error

    async def get(self, session_id: str, run_id: str) -> Run | None:
        """The run, if this session has it."""
        return _run(await self._collection.find_one({"_id": run_id, "session_id": session_id}))

    async def active(self, session_id: str) -> Run | None:
        """The session's queued or running run."""
        return _run(await self._collection.find_one({"session_id": session_id, "active": True}))

    async def page(self, session_id: str, *, before: float, limit: int) -> list[Run]:
        """Up to `limit` runs created before `before` (Unix seconds), newest first."""
        query = {"session_id": session_id, "created_at": {"$lt": before}}
        cursor = self._collection.find(query).sort("created_at", DESCENDING).limit(limit)
        return [run for found in await cursor.to_list(None) if (run := _run(found))]

    async def start(self, run_id: str, *, worker: str) -> Run | None:
        """Take a queued run for this worker; None when another took it or it has ended."""
        found = await self._collection.find_one_and_update(
            {"_id": run_id, "state": "queued"},
            {"$set": {"state": "running", "worker": worker, "started_at": time.time()}},
            return_document=ReturnDocument.AFTER,
        )
        return _run(found)

    async def owns(self, run_id: str, attempt: int) -> bool:
        """Whether `attempt` is still the one that may write for this run: the fence of `eventlog.Writer`."""
        query = {"_id": run_id, "attempt": attempt, "active": True}
        return await self._collection.find_one(query, {"_id": 1}) is not None

    async def began(self, run_id: str, first_seq: int) -> None:
        """Keep where the run's events begin."""
        await self._collection.update_one({"_id": run_id}, {"$set": {"first_seq": first_seq}})

    async def end(
        self, run_id: str, attempt: int, *, status: FinishStatus, last_seq: int, error: str | None
    ) -> bool:
        """Close the run after its `finish` was written; False when this attempt had lost it."""
        found = await self._collection.update_one(
            {"_id": run_id, "attempt": attempt, "active": True},
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


def _run(found: dict[str, Any] | None) -> Run | None:
    return None if found is None else from_document(Run, found)
