"""The `segments` collection: which events are in the archive. Only what stands here counts as archived."""

from __future__ import annotations

from typing import Any

from pymongo import ASCENDING, DESCENDING
from pymongo.errors import DuplicateKeyError

from tailrace.archive.segment import Segment
from tailrace.documents import from_document, to_document
from tailrace.mongo import Database

__all__ = ["Segments"]


class Segments:
    """Each session's segments, in order, without overlaps."""

    def __init__(self, database: Database) -> None:
        self._collection = database["segments"]

    async def add(self, segment: Segment) -> bool:
        """Count the segment, whose object is in the archive; False when another begins at its place."""
        try:
            await self._collection.insert_one(to_document(segment))
        except DuplicateKeyError:
            return False
        return True

    async def of(self, session_id: str) -> list[Segment]:
        """All of the session's, in order."""
        cursor = self._collection.find({"session_id": session_id}).sort("last", ASCENDING)
        return [from_document(Segment, found) for found in await cursor.to_list(None)]

    async def first(self, session_id: str) -> Segment | None:
        """The session's first."""
        return await self._one({"session_id": session_id}, ASCENDING)

    async def last(self, session_id: str) -> Segment | None:
        """The session's last."""
        return await self._one({"session_id": session_id}, DESCENDING)

    async def behind(self, session_id: str, seq: int) -> Segment | None:
        """The first that has an event behind `seq`."""
        return await self._one({"session_id": session_id, "last": {"$gt": seq}}, ASCENDING)

    async def at(self, session_id: str, timestamp: float) -> Segment | None:
        """The first that has an event which is not before `timestamp`, Unix seconds."""
        return await self._one({"session_id": session_id, "last_timestamp": {"$gte": timestamp}}, ASCENDING)

    async def _one(self, query: dict[str, Any], direction: int) -> Segment | None:
        found = await self._collection.find_one(query, sort=[("last", direction)])
        return None if found is None else from_document(Segment, found)
