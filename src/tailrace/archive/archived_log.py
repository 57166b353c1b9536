"""The event log over both places: what MongoDB has let go is read from the archive, without a seam."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from bson import Timestamp

from tailrace.archive.segment import Lines, Segment, unpack
from tailrace.archive.segments import Segments
from tailrace.archive.store import ObjectStore
from tailrace.errors import ArchiveDamaged, ArchiveUnavailable
from tailrace.eventlog import Bounds, EventLog
from tailrace.events import Event
from tailrace.mongo import Database

__all__ = ["ArchivedLog"]

KEPT_BYTES = 32 * 1024 * 1024  # of unpacked segments, for the replays that are under way
LOADS = 2  # segments at once
WAIT_SECONDS = 3.0  # for one of them: who reads history holds one of few turns, others need no archive
AWAY_SECONDS = 1.0  # between those who wait while a store hangs; the others are told at once

log = logging.getLogger(__name__)


class ArchivedLog(EventLog):
    """An `EventLog` whose readers see what is archived too, as the same events and bytes.

    A segment counts before its events may expire, so what MongoDB lacks is looked for in the archive after
    MongoDB was asked, and found. Where the store is away, reading raises `ArchiveUnavailable`; what is
    damaged or missing there is a hole, as it would be in MongoDB.
    """

    def __init__(self, database: Database, store: ObjectStore, *, retention_seconds: float) -> None:
        super().__init__(database, retention_seconds=retention_seconds)
        self._store = store
        self._segments = Segments(database)
        self._kept: OrderedDict[str, Lines] = OrderedDict()  # the one that was used last is the last
        self._loads = asyncio.Semaphore(LOADS)
        self._hangs = False  # somebody waited in vain, and nothing was loaded since
        self._wait_again = 0.0  # time.monotonic()

    async def read(
        self, session_id: str, *, after: int, limit: int, at: Timestamp | None = None
    ) -> list[Event]:
        """As `EventLog.read`, over both places."""
        events: list[Event] = []
        while len(events) < limit:
            found = await super().read(session_id, after=after, limit=limit - len(events), at=at)
            whole = _next(found, after)
            events += whole
            after += len(whole)
            rest = found[len(whole) :]  # behind a hole, if there is one
            segment = None if len(events) == limit else await self._segments.behind(session_id, after)
            archived = None
            if segment is not None and not (rest and rest[0].seq <= segment.first):
                archived = await self._archived(segment, after, limit - len(events))
            if archived is None:
                events += rest
                break
            events += archived
            after = archived[-1].seq
        return events

    async def bounds(self, session_id: str) -> Bounds:
        """As `EventLog.bounds`, over both places."""
        bounds = await super().bounds(session_id)
        first = await self._segments.first(session_id)
        return bounds if first is None else Bounds(min(first.first, bounds.first), bounds.last)

    async def seq_at(self, session_id: str, timestamp: float) -> int:
        """As `EventLog.seq_at`, over both places."""
        seq = await super().seq_at(session_id, timestamp)
        if seq > (await super().bounds(session_id)).first:
            return seq  # MongoDB has an event before that one, which is older
        segment = await self._segments.at(session_id, timestamp)
        if segment is None or segment.first >= seq:
            return seq
        if segment.first_timestamp >= timestamp:
            return segment.first
        lines = await self._lines(segment)
        return segment.first if lines is None else lines.seq_at(timestamp)

    async def _archived(self, segment: Segment, after: int, limit: int) -> list[Event] | None:
        """Events behind `after` from the archive; None when MongoDB has to go on behind a hole.

        Raises `ArchiveUnavailable` where the hole would be taken for the session's end.
        """
        lines = await self._lines(segment)
        if lines is not None:
            return await asyncio.to_thread(lines.after, after, limit)
        bounds = await super().bounds(segment.session_id)
        if bounds.first <= min(bounds.last, segment.last + 1):
            return None
        following = await self._segments.behind(segment.session_id, segment.last)
        if following is None:
            raise ArchiveUnavailable(f"The archive has lost {segment.key}, the end of its session.")
        return await self._archived(following, segment.last, limit)

    async def _lines(self, segment: Segment) -> Lines | None:
        """The segment's lines; None when they are lost."""
        lines = self._kept.get(segment.key)
        if lines is None:
            async with self._load():  # whoever waits for the same segment finds it then
                lines = self._kept.get(segment.key) or await self._loaded(segment)
        if lines is not None:
            self._keep(segment.key, lines)
        return lines

    @asynccontextmanager
    async def _load(self) -> AsyncIterator[None]:
        """One of the loads at once, after a bounded wait. Raises `ArchiveUnavailable` when they hang."""
        if self._hangs and self._loads.locked():
            if time.monotonic() < self._wait_again:
                raise ArchiveUnavailable
            self._wait_again = time.monotonic() + AWAY_SECONDS
        try:
            async with asyncio.timeout(WAIT_SECONDS):
                await self._loads.acquire()
        except TimeoutError:
            self._hangs, self._wait_again = True, time.monotonic() + AWAY_SECONDS
            raise ArchiveUnavailable from None
        try:
            yield
            self._hangs = False
        finally:
            self._loads.release()

    def _keep(self, key: str, lines: Lines) -> None:
        self._kept[key] = lines
        self._kept.move_to_end(key)
        while len(self._kept) > 1 and sum(kept.size for kept in self._kept.values()) > KEPT_BYTES:
            self._kept.popitem(last=False)

    async def _loaded(self, segment: Segment) -> Lines | None:
        packed = await self._store.read(segment.key)
        try:
            if packed is None:
                raise ArchiveDamaged(f"{segment.key} is not there.")
            return await asyncio.to_thread(unpack, segment, packed)
        except ArchiveDamaged as error:
            words = {"action": "archive", "session_id": segment.session_id, "error": str(error)}
            log.error("A part of the archive is lost", extra=words)
            return None


def _next(events: Sequence[Event], after: int) -> Sequence[Event]:
    """Those of `events` that follow `after`, up to the first hole."""
    for nth, event in enumerate(events):
        if event.seq != after + 1 + nth:
            return events[:nth]
    return events
