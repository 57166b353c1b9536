"""How many runs of a user may be unfinished at once: waiting, queued or running."""

from __future__ import annotations

from typing import Any

from pymongo.errors import DuplicateKeyError

from tailrace.errors import LimitReached
from tailrace.mongo import Database
from tailrace.runs import Run

__all__ = ["RunSlots"]

RETRY_AFTER_SECONDS = 5  # nobody knows when a run ends
UNUSED_SECONDS = 120  # then a slot whose run was never stored is free: its process died, or gave up long ago


class RunSlots:
    """One document a user, in MongoDB, which lists the runs that may be unfinished.

    A slot is taken before the run is stored, by one atomic update that a full list refuses. Nobody frees it
    when the run ends: a full list is held against `runs`, which alone knows, and what has ended is struck
    off. So a slot costs one write, no lock is held, and no process that dies leaves one taken.
    """

    def __init__(self, database: Database, limit: int) -> None:
        self._slots = database["slots"]
        self._runs = database["runs"]
        self._limit = limit

    async def take(self, run: Run) -> None:
        """Take a slot for `run`, which is about to be stored. Raises `LimitReached` when there is none."""
        if await self._taken(run):
            return
        await self._strike_off_ended(run.user)
        if await self._taken(run):
            return
        raise LimitReached(
            "concurrent-runs",
            f"At most {self._limit} runs may wait or run at once. Wait for one to end, or cancel it.",
            allowed=self._limit,
            retry_after=RETRY_AFTER_SECONDS,
        )

    async def give_back(self, run: Run) -> None:
        """Free the slot of a run that was not stored after all."""
        await self._slots.update_one({"_id": run.user}, {"$pull": {"slots": {"run_id": run.run_id}}})

    async def _taken(self, run: Run) -> bool:
        slot = {"run_id": {"$literal": run.run_id}, "session_id": {"$literal": run.session_id}, "at": "$$NOW"}
        slots = {"$concatArrays": [{"$ifNull": ["$slots", []]}, [slot]]}
        try:
            await self._slots.update_one(
                # A full list makes this an insert of a taken `_id`, which is refused.
                {"_id": run.user, f"slots.{self._limit - 1}": {"$exists": False}},
                [{"$set": {"slots": slots}}],
                upsert=True,
            )
        except DuplicateKeyError:
            return False
        return True

    async def _strike_off_ended(self, user: str) -> None:
        listed = await self._slots.find_one({"_id": user}) or {}
        slots: list[dict[str, Any]] = listed.get("slots", [])
        ids = [slot["run_id"] for slot in slots]
        # With the sessions, so that a sharded cluster asks only where they are.
        query = {"_id": {"$in": ids}, "session_id": {"$in": sorted({slot["session_id"] for slot in slots})}}
        found = await self._runs.find(query, {"finished_at": 1}).to_list(None)
        ended = [each["_id"] for each in found if each.get("finished_at") is not None]
        missing = sorted(set(ids) - {each["_id"] for each in found})
        unused = {"$lt": ["$$this.at", {"$subtract": ["$$NOW", UNUSED_SECONDS * 1000]}]}
        free = {
            "$or": [
                {"$in": ["$$this.run_id", {"$literal": ended}]},
                {"$and": [{"$in": ["$$this.run_id", {"$literal": missing}]}, unused]},
            ]
        }
        kept = {"$filter": {"input": "$slots", "cond": {"$not": [free]}}}
        await self._slots.update_one({"_id": user}, [{"$set": {"slots": kept}}])
