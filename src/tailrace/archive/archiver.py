"""The archiver: puts what is finished into the archive, and lets it expire from MongoDB only then."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import msgspec
from pymongo import ASCENDING

from tailrace.archive.segment import Segment, pack
from tailrace.archive.segments import Segments
from tailrace.archive.store import ObjectStore
from tailrace.eventlog import EventLog
from tailrace.events import Event
from tailrace.mongo import Database
from tailrace.settings import Settings

__all__ = ["Archived", "Archiver"]

MAX_EVENTS = 5_000  # of a segment
MAX_BYTES = 4 * 1024 * 1024  # of its lines; one event more may be over it
PAGE = 250  # events read at once, and let expire at once twenty times as many
SESSIONS = 500  # looked up at once


class Archived(msgspec.Struct, frozen=True, kw_only=True):
    """What was done for one session."""

    session_id: str
    events: int
    segments: int
    bytes: int  # of the events' JSON
    stored_bytes: int  # of the objects


class _Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """What the archive has of a session, for who has nothing but the archive. Nothing here reads it."""

    session_id: str
    first: int
    last: int
    segments: list[Segment]


class Archiver:
    """Archives sessions. Any number may run at once, and each may die at any moment.

    First the object, which is read back; then the segment in MongoDB, where two that begin at one place
    collide; then the events may expire; then the manifest; at last the session's `archived_seq`, so that
    whoever died before is repeated from there.
    """

    def __init__(self, settings: Settings, database: Database, store: ObjectStore) -> None:
        self._settings = settings
        self._store = store
        self._segments = Segments(database)
        self._log = EventLog(database, retention_seconds=settings.retention_seconds)
        self._sessions = database["sessions"]
        self._runs = database["runs"]

    async def waiting(self, *, quiet_seconds: float) -> AsyncIterator[str]:
        """The sessions that have unarchived events and no newer prompt than that."""
        last_id = ""
        behind = {"$expr": {"$gt": ["$last_seq", {"$ifNull": ["$archived_seq", 0]}]}}
        old = {"owner": {"$exists": True}, "updated_at": {"$lt": time.time() - quiet_seconds}, **behind}
        while True:
            cursor = self._sessions.find({"_id": {"$gt": last_id}, **old}, {"_id": 1}).sort("_id", ASCENDING)
            found = [str(each["_id"]) for each in await cursor.limit(SESSIONS).to_list(None)]
            for session_id in found:
                yield session_id
            if len(found) < SESSIONS:
                return
            last_id = found[-1]

    async def archive(self, session_id: str, *, quiet_seconds: float) -> Archived | None:
        """Archive the session's events; None when it is at work, was so too lately, or is not there.

        Raises `ArchiveUnavailable`; what was archived until then stays so.
        """
        session = await self._sessions.find_one({"_id": session_id, "owner": {"$exists": True}})
        unfinished = {"session_id": session_id, "finished_at": None}
        if session is None or await self._runs.find_one(unfinished, {"_id": 1}) is not None:
            return None
        newest = await self._log.last(session_id)
        if newest is not None and newest.timestamp > time.time() - quiet_seconds:
            return None
        added = await self._add_segments(session_id)
        last = await self._segments.last(session_id)
        if last is not None:
            await self._let_expire(session_id, after=session.get("archived_seq", 0), upto=last.last)
            await self._write_manifest(session_id)
        archived_seq = max((await self._log.bounds(session_id)).first - 1, last.last if last else 0)
        await self._sessions.update_one(
            {"_id": session_id, "owner": {"$exists": True}}, {"$max": {"archived_seq": archived_seq}}
        )
        return Archived(
            session_id=session_id,
            events=sum(each.last - each.first + 1 for each in added),
            segments=len(added),
            bytes=sum(each.bytes for each in added),
            stored_bytes=sum(each.stored_bytes for each in added),
        )

    async def _add_segments(self, session_id: str) -> list[Segment]:
        added: list[Segment] = []
        while True:
            last = await self._segments.last(session_id)
            events = await self._next_events(session_id, after=last.last if last else 0)
            if not events:
                return added
            segment, packed = await asyncio.to_thread(pack, events)
            await self._store.write(segment.key, packed)
            if await self._sessions.find_one({"_id": session_id, "owner": {"$exists": True}}) is None:
                await self._store.delete(segment.key)
                return []
            if await self._segments.add(segment):
                added.append(segment)
                continue
            # Another archiver was first, and may have seen fewer or more events.
            if segment.key not in {each.key for each in await self._segments.of(session_id)}:
                await self._store.delete(segment.key)

    async def _next_events(self, session_id: str, *, after: int) -> list[Event]:
        """A segment's events: those behind `after`, up to the first hole or a segment's size."""
        events: list[Event] = []
        size = 0
        while len(events) < MAX_EVENTS and size < MAX_BYTES:
            page = await self._log.read(session_id, after=after, limit=PAGE)
            for event in page:
                whole = not events or event.seq == after + 1
                if not whole or len(events) >= MAX_EVENTS or size >= MAX_BYTES:
                    return events
                events.append(event)
                size += len(event.to_json()) + 1
                after = event.seq
            if len(page) < PAGE:
                break
        return events

    async def _let_expire(self, session_id: str, *, after: int, upto: int) -> None:
        # What it says now: it may have changed meanwhile.
        session = await self._sessions.find_one({"_id": session_id}) or {}
        seconds = session.get("retention_seconds")
        if seconds is None:
            seconds = self._settings.retention_seconds
        for start in range(after, upto, 20 * PAGE):
            end = min(start + 20 * PAGE, upto)
            await self._log.keep(session_id, after=start, upto=end, retention_seconds=seconds)

    async def _write_manifest(self, session_id: str) -> None:
        segments = await self._segments.of(session_id)
        manifest = _Manifest(
            session_id=session_id, first=segments[0].first, last=segments[-1].last, segments=segments
        )
        await self._store.write(f"{session_id}/manifest.json", msgspec.json.encode(manifest))
