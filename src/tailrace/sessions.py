"""A session: one conversation, its owner, and how far its log has come."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
from pymongo import DESCENDING, ReadPreference, ReturnDocument
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import DuplicateKeyError

from tailrace.documents import from_document
from tailrace.errors import NotYours

__all__ = ["Session", "Sessions"]

TITLE_CHARACTERS = 80


class Session(msgspec.Struct, frozen=True, kw_only=True):
    """One conversation."""

    session_id: str  # `_id` in MongoDB; chosen by the client
    owner: str  # the `sub` of the first user who posted to it
    created_at: float  # Unix seconds
    updated_at: float  # Unix seconds of the newest prompt
    title: str = ""  # the beginning of the first prompt
    last_seq: int = (
        0  # the log's end at the last `finish`: `seq` goes on from it when the events have expired
    )
    retention_seconds: float | None = None  # of its events; 0 for ever, None as the settings say


class Sessions:
    """The `sessions` collection."""

    def __init__(self, database: AsyncDatabase[dict[str, Any]]) -> None:
        self._collection = database["sessions"]

    async def claim(
        self, session_id: str, user: str, *, title: str, retention_seconds: float | None = None
    ) -> Session:
        """The session, made and owned by `user` if nobody had it; only then the other two count.

        Raises `NotYours` when it belongs to somebody else.
        """
        now = time.time()
        update = {
            "$set": {"updated_at": now},
            "$setOnInsert": {
                "created_at": now,
                "title": title[:TITLE_CHARACTERS],
                "last_seq": 0,
                **({} if retention_seconds is None else {"retention_seconds": retention_seconds}),
            },
        }
        try:
            found = await self._collection.find_one_and_update(
                # A foreign owner makes this an insert of a taken `_id`: the unique index decides, atomically.
                {"_id": session_id, "owner": user},
                update,
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:
            owned = await self.owned_by(session_id, user)
            if owned is None:
                raise NotYours from None
            return owned  # two first prompts of one user at once: the other one made it
        assert found is not None  # an upsert returns what it made
        return from_document(Session, found)

    async def owned_by(self, session_id: str, user: str) -> Session | None:
        """The session if it exists and is `user`'s, else None: the two are not told apart on purpose."""
        found = await self._collection.find_one({"_id": session_id, "owner": user})
        return None if found is None else from_document(Session, found)

    async def owners(self, session_ids: Sequence[str]) -> dict[str, str]:
        """The owner of each of the sessions that exists."""
        # From the primary, whatever the URL says: a secondary may not have heard of a new session yet.
        primary = self._collection.with_options(read_preference=ReadPreference.PRIMARY)
        # What was erased has none.
        existing = {"_id": {"$in": list(session_ids)}, "owner": {"$exists": True}}
        # In one answer: the server's first one has 101 documents else.
        cursor = primary.find(existing, {"owner": 1}).batch_size(len(session_ids) + 1)
        return {str(found["_id"]): str(found["owner"]) for found in await cursor.to_list(None)}

    async def of(self, user: str, *, before: float, limit: int) -> list[Session]:
        """Up to `limit` of the user's sessions updated before `before` (Unix seconds), newest first."""
        query = {"owner": user, "updated_at": {"$lt": before}}
        cursor = self._collection.find(query).sort("updated_at", DESCENDING).limit(limit)
        return [from_document(Session, found) for found in await cursor.to_list(None)]

    async def last_seq(self, session_id: str) -> int:
        """The end of the log that is remembered for when its events have expired; 0 for a new session."""
        found = await self._collection.find_one({"_id": session_id}, {"last_seq": 1})
        return int((found or {}).get("last_seq", 0))

    async def remember_last_seq(self, session_id: str, seq: int) -> None:
        """Keep `seq` as the log's end, unless a later one is kept already."""
        await self._collection.update_one({"_id": session_id}, {"$max": {"last_seq": seq}})
