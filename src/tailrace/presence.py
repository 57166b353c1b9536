"""Presence: which runs still have a reader, over all API processes, for runs that end when nobody reads."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from tailrace.documents import readable
from tailrace.mongo import Database
from tailrace.runs import Run

__all__ = ["SEEN_SECONDS", "Presence"]

SEEN_SECONDS = 2.0  # a process says so about every second: past this, it has no reader or it is dead


class Presence:
    """When each run that minds was last seen to have a reader, by the database's clock."""

    def __init__(self, database: Database) -> None:
        self._runs = database["runs"]
        self._gone: set[str] = set()  # the runs that had no reader at the last look

    async def look(self, sessions: Collection[str]) -> list[Run]:
        """Say that these sessions have a reader in this process; returns the runs that have none anywhere
        for longer than they allow, and had none at the last look either: while MongoDB is away nobody can
        say that he reads."""
        minding: dict[str, Any] = {
            "active": True,
            "cancel_after": {"$gte": 0},
            "cancel_requested": {"$ne": True},
        }
        found = await self._runs.find(minding, {"session_id": 1}).to_list(None)
        here = [each["_id"] for each in found if each["session_id"] in sessions]
        if here:
            await self._runs.update_many({"_id": {"$in": here}}, [{"$set": {"last_reader_at": "$$NOW"}}])
        if len(here) == len(found):
            self._gone = set()
            return []
        patience = {"$multiply": [{"$add": ["$cancel_after", SEEN_SECONDS]}, 1000]}
        gone = {"$expr": {"$lt": [{"$add": ["$last_reader_at", patience]}, "$$NOW"]}}
        left = readable(Run, await self._runs.find({**minding, **gone}).to_list(None))
        twice = [run for run in left if run.run_id in self._gone]
        self._gone = {run.run_id for run in left}
        return twice
