"""The passes of `tailrace archive`: when one last left nothing behind, in one document of `archive`."""

from __future__ import annotations

import math
import time

from tailrace.mongo import Database

__all__ = ["BEHIND_SECONDS", "Passes"]

BEHIND_SECONDS = 6 * 3_600.0  # of a pass that should go through every hour: the alert's threshold too

_WHOLE = "whole pass"


class Passes:
    """Remembers the last pass that archived all there was to archive, whoever made it."""

    def __init__(self, database: Database) -> None:
        self._collection = database["archive"]

    async def went_through(self, began_at: float) -> None:
        """A pass that began at that Unix time had to leave no session for the next one."""
        await self._collection.update_one({"_id": _WHOLE}, {"$max": {"began_at": began_at}}, upsert=True)

    async def age(self) -> float:
        """Seconds since the last such pass began; infinite when there was none."""
        found = await self._collection.find_one({"_id": _WHOLE})
        return math.inf if found is None else max(0.0, time.time() - float(found["began_at"]))
