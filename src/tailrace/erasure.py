"""Erasure: a session is unreachable at once, then deleted wherever it is, until nothing is left of it.

One atomic update turns the session's document into a tombstone, which names no owner. From then on every
route says 404, readers are cut, and nobody can claim the id. What is left to delete is found by the
tombstone, by any API process, however often one dies on the way; and it is swept again and again for a day:
a process that was frozen meanwhile writes on when it thaws, and there is nothing left for it to collide with.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any

import httpx
from pymongo import ASCENDING, ReturnDocument
from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from tailrace.documents import readable
from tailrace.errors import TailraceError
from tailrace.jobs import Jobs, job_ids
from tailrace.mongo import Database, end_task
from tailrace.runs import Run
from tailrace.settings import Settings
from tailrace.traces import delete_traces

__all__ = ["TOMBSTONE_SECONDS", "Erasure"]

TOMBSTONE_SECONDS = 86_400  # from the erasure; then a process that is still frozen finds no tombstone
LOOK_SECONDS = 1.0  # about; a look costs one indexed query
FIRST_SWEEP_SECONDS, LAST_SWEEP_SECONDS = 5, 3_600  # waits between sweeps, each four times the one before
CLAIM_SECONDS = 10  # then another process joins in, if this one has died or is slow: nothing is done twice
BATCH = 2_000  # documents deleted at once: far below the socket timeout

_AWAY = (PyMongoError, RedisError, OSError, httpx.HTTPError, TailraceError)

log = logging.getLogger(__name__)

# Deletes what else there is of a session.
Elsewhere = Callable[[str], Awaitable[None]]


class Erasure:
    """Erases sessions; what it begins, any process's `kept` finishes."""

    def __init__(
        self, settings: Settings, database: Database, jobs: Jobs, *, elsewhere: Sequence[Elsewhere] = ()
    ) -> None:
        self._settings = settings
        self._database = database
        self._jobs = jobs
        self._elsewhere = elsewhere
        self._sessions = database["sessions"]
        self._runs = database["runs"]
        self._begun = asyncio.Event()

    async def erase(self, session_id: str, user: str) -> bool:
        """Put a tombstone in the place of the user's session; False when he has none of that id.

        On return nobody reaches the session any more; what is stored of it is deleted soon after.
        """
        tombstone = {
            "_id": "$_id",
            "last_seq": {"$ifNull": ["$last_seq", 0]},
            "erased_at": "$$NOW",
            "sweep_at": "$$NOW",
            "sweeps": 0,
            "jobs": [],
            "traces": [],
        }
        done = await self._sessions.update_one(
            {"_id": session_id, "owner": user}, [{"$replaceWith": tombstone}]
        )
        if done.modified_count:
            log.info("A session is erased", extra={"action": "erase", "session_id": session_id})
            self._begun.set()
        return bool(done.modified_count)

    async def again(self, session_id: str) -> None:
        """Sweep the session now, if it was erased: something was stored of it since."""
        await self._sessions.update_one(
            {"_id": session_id, "erased_at": {"$exists": True}}, [{"$set": {"sweep_at": "$$NOW"}}]
        )
        self._begun.set()

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Sweep what was erased, here or elsewhere, while the body runs."""
        task = asyncio.create_task(self._keep(), name="erasure")
        try:
            yield
        finally:
            await end_task(task)

    async def _keep(self) -> None:
        while True:
            with suppress(TimeoutError):
                async with asyncio.timeout(LOOK_SECONDS * random.uniform(0.7, 1.3)):
                    await self._begun.wait()
            self._begun.clear()
            try:
                while (tombstone := await self._due()) is not None:
                    await self.sweep(tombstone)
            except _AWAY as error:
                log.warning("Erasure waits", extra={"action": "erase", "error": str(error)[:200]})
            except Exception:
                # A document that is no run, say: what is due beside it is still to be swept.
                log.exception("Erasure failed", extra={"action": "erase"})

    async def _due(self) -> dict[str, Any] | None:
        """A tombstone that is to be swept now, by this process alone for a while."""
        due = {"sweep_at": {"$type": "date"}, "$expr": {"$lte": ["$sweep_at", "$$NOW"]}}
        # Looked up first: a sharded cluster updates one document only where it is told which one.
        while found := await self._sessions.find_one(due, {"_id": 1}, sort=[("sweep_at", ASCENDING)]):
            claimed: dict[str, Any] | None = await self._sessions.find_one_and_update(
                {"_id": found["_id"], **due},
                [{"$set": {"sweep_at": {"$add": ["$$NOW", CLAIM_SECONDS * 1000]}}}],
                return_document=ReturnDocument.AFTER,
            )
            if claimed is not None:
                return claimed
        return None

    async def sweep(self, tombstone: dict[str, Any]) -> None:
        """Delete everything that there is now of an erased session, and say when to look again."""
        session_id = tombstone["_id"]
        await self._end_runs(session_id)
        named = await self._noted(session_id)
        steps: list[Elsewhere] = [
            lambda _: self._jobs.forget(named["jobs"]),
            *(partial(self._delete, collection) for collection in ("events", "messages", "runs", "segments")),
            self._delete_others,
            *self._elsewhere,
            lambda _: delete_traces(self._settings, named["traces"]),
        ]
        done = [await _done(step, session_id) for step in steps]
        await self._schedule(tombstone, whole=all(done))

    async def _end_runs(self, session_id: str) -> None:
        """Fence every run of the session, then tell those who perform one."""
        open_runs = {"session_id": session_id, "finished_at": None}
        found = await self._runs.find(open_runs).to_list(None)
        if not found:
            return
        ended = {"active": False, "state": "cancelled", "finished_at": time.time(), "cancel_requested": True}
        await self._runs.update_many(open_runs, {"$set": ended})
        with suppress(RedisError, OSError):  # else they see it at their next beat
            for run in readable(Run, found):
                await self._jobs.cancel(run)

    async def _noted(self, session_id: str) -> dict[str, Any]:
        """The tombstone, with what names the session's runs outside of MongoDB: the runs will be gone."""
        runs = readable(Run, await self._runs.find({"session_id": session_id}).to_list(None))
        jobs = [each for run in runs for each in job_ids(run)]
        traces = [run.trace_id for run in runs if run.trace_id]
        found: dict[str, Any] | None = await self._sessions.find_one_and_update(
            {"_id": session_id, "erased_at": {"$exists": True}},
            [{"$set": {"jobs": _joined("$jobs", jobs), "traces": _joined("$traces", traces)}}],
            return_document=ReturnDocument.AFTER,
        )
        return found or {"jobs": jobs, "traces": traces}

    async def _delete(self, collection: str, session_id: str) -> None:
        documents = self._database[collection]
        own = {"session_id": session_id}
        while found := await documents.find(own, {"_id": 1}).limit(BATCH).to_list(None):
            await documents.delete_many({**own, "_id": {"$in": [each["_id"] for each in found]}})

    async def _delete_others(self, session_id: str) -> None:
        await self._database["notes"].delete_one({"_id": session_id})
        await self._database["slots"].update_many(
            {"slots.session_id": session_id}, {"$pull": {"slots": {"session_id": session_id}}}
        )

    async def _schedule(self, tombstone: dict[str, Any], *, whole: bool) -> None:
        """Only a session of which nothing was left loses its tombstone in the end."""
        wait = min(FIRST_SWEEP_SECONDS * 4 ** tombstone["sweeps"], LAST_SWEEP_SECONDS)
        expires_at = {"$add": ["$erased_at", TOMBSTONE_SECONDS * 1000]} if whole else "$$REMOVE"
        update = {
            "sweeps": {"$add": ["$sweeps", 1]},
            "sweep_at": {"$add": ["$$NOW", wait * 1000]},
            "expires_at": expires_at,
        }
        # Not over what somebody asked for meanwhile, who found that more was stored.
        own = {"_id": tombstone["_id"], "erased_at": {"$exists": True}, "sweep_at": tombstone["sweep_at"]}
        await self._sessions.update_one(own, [{"$set": update}])


async def _done(step: Elsewhere, session_id: str) -> bool:
    """Whether `step` went through: what keeps one from it keeps no other."""
    try:
        await step(session_id)
    except _AWAY as error:
        said = f"{type(error).__name__}: {error}"[:200]
        log.warning(
            "A part of an erased session waits for its deletion",
            extra={"action": "erase", "session_id": session_id, "error": said},
        )
        return False
    return True


def _joined(field: str, more: Sequence[str]) -> dict[str, Any]:
    return {"$setUnion": [field, {"$literal": list(more)}]}
