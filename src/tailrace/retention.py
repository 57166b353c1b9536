"""Retention: how long a session's events are kept, what that comes to, and how to change it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from tailrace.errors import NotYours
from tailrace.eventlog import EventLog
from tailrace.mongo import Database, settled
from tailrace.settings import Settings

__all__ = ["Kept", "Overview", "Retention"]

BATCH = 5_000  # events changed at once: far below the socket timeout
COUNTED = 1_000_000  # events; counting more would take longer than it is worth

_EXISTS = {"owner": {"$exists": True}}  # and is not erased


class Kept(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of one session."""

    session_id: str
    retention_seconds: float  # 0 for ever
    events: int  # in MongoDB
    first_seq: int  # of them; behind `last_seq` when there are none
    last_seq: int
    archived_seq: int  # up to here they are in the archive
    running: bool  # a run is active, which keeps what it writes as it was told at its beginning


class Overview(msgspec.Struct, frozen=True, kw_only=True):
    """What is kept of all sessions. Counts of events stop at a million."""

    sessions: dict[str, int]  # by retention in seconds; 0 for ever
    events: int
    events_bytes: int  # of the events, uncompressed
    stored_bytes: int  # of the events and their indexes, on disk
    expire_within_a_day: int  # events
    overdue: int  # events that should have been deleted ten minutes ago
    without_expiry: int  # events: kept for ever, or not archived yet


class Retention:
    """Looks at, and changes, how long events are kept."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._settings = settings
        self._database = database
        self._log = EventLog(database, retention_seconds=settings.retention_seconds)

    async def overview(self) -> Overview:
        """What is kept of all sessions."""
        given = {"$ifNull": ["$retention_seconds", self._settings.retention_seconds]}
        grouped = await settled(
            self._database["sessions"].aggregate(
                [{"$match": _EXISTS}, {"$group": {"_id": given, "count": {"$sum": 1}}}, {"$sort": {"_id": 1}}]
            )
        )
        sizes = await self._database.command("collStats", "events")
        now = datetime.now(UTC)
        return Overview(
            sessions={f"{each['_id']:g}": int(each["count"]) for each in await grouped.to_list(None)},
            events=int(sizes.get("count", 0)),
            events_bytes=int(sizes.get("size", 0)),
            stored_bytes=int(sizes.get("storageSize", 0) + sizes.get("totalIndexSize", 0)),
            expire_within_a_day=await self._count({"$lt": now + timedelta(days=1)}),
            overdue=await self._count({"$lt": now - timedelta(minutes=10)}),
            without_expiry=await self._count(None),
        )

    async def _count(self, expires_at: Any) -> int:
        found: int = await self._database["events"].count_documents({"expires_at": expires_at}, limit=COUNTED)
        return found

    async def of(self, session_id: str) -> Kept:
        """What is kept of a session. Raises `NotYours` when there is none."""
        session = await self._database["sessions"].find_one({"_id": session_id, **_EXISTS})
        if session is None:
            raise NotYours(f"There is no session {session_id!r}.")
        bounds = await self._log.bounds(session_id)
        given = session.get("retention_seconds")
        active = {"session_id": session_id, "active": True}
        return Kept(
            session_id=session_id,
            retention_seconds=self._settings.retention_seconds if given is None else given,
            events=await self._database["events"].count_documents({"session_id": session_id}, limit=COUNTED),
            first_seq=bounds.first,
            last_seq=bounds.last,
            archived_seq=session.get("archived_seq", 0),
            running=await self._database["runs"].find_one(active, {"_id": 1}) is not None,
        )

    async def change(
        self, session_id: str, retention_seconds: float | None, *, told: Callable[[int, int], None]
    ) -> None:
        """Keep the session's events for so long after their time: 0 for ever, None as the settings say.

        First what comes, then what there is, in batches, each of which is `told` as events done and to do.
        A repeat does it all again. With an archive, nothing that is not in it yet gets an expiry here.
        Raises `NotYours` when there is no such session.
        """
        update: dict[str, Any] = {"$set": {"retention_seconds": retention_seconds}}
        if retention_seconds is None:
            update = {"$unset": {"retention_seconds": ""}}
        sessions, runs = self._database["sessions"], self._database["runs"]
        session = await sessions.find_one_and_update({"_id": session_id, **_EXISTS}, update)
        if session is None:
            raise NotYours(f"There is no session {session_id!r}.")
        seconds = self._settings.retention_seconds if retention_seconds is None else retention_seconds
        bounds = await self._log.bounds(session_id)
        last = bounds.last
        if self._settings.archive_url:
            last = min(last, session.get("archived_seq", 0))
        else:
            await runs.update_many({"session_id": session_id, "finished_at": None}, update)
        for after in range(bounds.first - 1, last, BATCH):
            upto = min(after + BATCH, last)
            await self._log.keep(session_id, after=after, upto=upto, retention_seconds=seconds)
            told(upto - bounds.first + 1, last - bounds.first + 1)
