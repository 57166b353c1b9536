"""The event log: inserts in order, reads after a position, watches from a moment.

It alone touches `events`, but for what erases whole sessions, and what asks several collections at once for a
reader who joins.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import msgspec
from bson import Timestamp
from pymongo import ASCENDING, DESCENDING, ReadPreference, WriteConcern
from pymongo.asynchronous.change_stream import AsyncCollectionChangeStream
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.errors import PyMongoError
from pymongo.read_concern import ReadConcern

from tailrace.digest import Digest
from tailrace.events import Event
from tailrace.insertion import insert_in_order
from tailrace.mongo import Database, settled, start_session
from tailrace.sessions import Sessions

__all__ = ["Bounds", "Changes", "End", "EventLog", "token_time"]

MAX_AWAIT_MS = 1_000  # how long the server holds an idle change stream's request; below the socket timeout
WATCH_BATCH = 1_000  # events in one answer of the change stream
DIGEST_PAGE = 1_000  # events read at once for a digest

# The server sends only what a reader needs: the document, and the token and time that resuming needs.
_WATCH_FIELDS = {"$project": {"clusterTime": 1, "fullDocument": 1}}


class Bounds(msgspec.Struct, frozen=True):
    """The positions that a session's log holds now; `first` is `last + 1` when every event has expired."""

    first: int
    last: int


class End(msgspec.Struct, frozen=True):
    """Where the next event goes."""

    seq: int
    timestamp: float


class EventLog:
    """Every session's events, in order. All reads see only what a majority has, on the primary."""

    def __init__(self, database: Database, *, retention_seconds: float) -> None:
        self._database = database
        self._sessions = Sessions(database)
        self._retention_seconds = retention_seconds
        self._events = database.get_collection(
            "events",
            read_preference=ReadPreference.PRIMARY,
            read_concern=ReadConcern("majority"),
            write_concern=WriteConcern("majority"),
        )

    async def read(
        self, session_id: str, *, after: int, limit: int, at: Timestamp | None = None
    ) -> list[Event]:
        """Up to `limit` events with `seq > after`, ascending; the server gives them in one answer.

        With `at`, the read sees everything that was committed up to that cluster time, or waits for it.
        """
        async with start_session(self._database) as session:
            if at is not None:
                session.advance_operation_time(at)
            cursor = self._events.find(
                {"session_id": session_id, "seq": {"$gt": after}}, {"expires_at": 0}, session=session
            )
            found = await cursor.sort("seq", ASCENDING).limit(limit).batch_size(limit + 1).to_list(None)
        return [Event.from_document(document) for document in found]

    async def bounds(self, session_id: str) -> Bounds:
        """The first and last position, seeing every write until now; 1 and 0 for a session without events."""
        async with self.fresh() as session:
            last = (await self.end(session_id, session)).seq
            first = await self._events.find_one(
                {"session_id": session_id}, {"seq": 1}, sort=[("seq", ASCENDING)], session=session
            )
        return Bounds(first["seq"] if first else last + 1, last)

    async def last(self, session_id: str) -> Event | None:
        """The newest event, unless it has expired."""
        found = await self._events.find_one({"session_id": session_id}, sort=[("seq", DESCENDING)])
        return Event.from_document(found) if found else None

    async def first_of(self, session_id: str, run_id: str, *, after: int) -> Event | None:
        """The run's first event behind `after`, if it has one; sees every write until now."""
        return await self._first({"session_id": session_id, "seq": {"$gt": after}, "run_id": run_id})

    async def finish_of(self, session_id: str, run_id: str, *, after: int) -> Event | None:
        """The run's `finish`, if it stands behind `after`; sees every write until now."""
        query = {
            "session_id": session_id,
            "seq": {"$gt": after},
            "run_id": run_id,
            "event_type": "finish",
        }
        return await self._first(query)

    async def _first(self, query: dict[str, Any]) -> Event | None:
        async with self.fresh() as session:
            found = await self._events.find_one(query, sort=[("seq", ASCENDING)], session=session)
        return Event.from_document(found) if found else None

    async def digest(
        self,
        session_id: str,
        run_id: str,
        *,
        after: int,
        upto: int | None = None,
        at: Timestamp | None = None,
    ) -> str:
        """The digest of the run's events with `after < seq <= upto` (None: to the log's end), as they stand.

        Sees everything that was committed up to the cluster time `at`, or every write until now. A `finish`
        among them is left out.
        """
        digest = Digest()
        own = {"session_id": session_id, "run_id": run_id, "event_type": {"$ne": "finish"}}
        places = {} if upto is None else {"$lte": upto}
        async with self.fresh(at) as session:
            while True:
                query = {**own, "seq": {"$gt": after, **places}}
                cursor = self._events.find(query, {"expires_at": 0}, session=session).sort("seq", ASCENDING)
                count = 0
                # A page in one answer: a cursor that is left open dies with a server that restarts.
                async for document in cursor.limit(DIGEST_PAGE).batch_size(DIGEST_PAGE + 1):
                    digest.update(Event.from_document(document).to_json())
                    after = document["seq"]
                    count += 1
                if count < DIGEST_PAGE:
                    return digest.hexdigest()

    async def seq_at(self, session_id: str, timestamp: float) -> int:
        """The smallest `seq` whose timestamp is not before `timestamp`; the next free one when none is.

        Timestamps never decrease, so everything from that `seq` on is as new or newer.
        """
        at_or_after = {"session_id": session_id, "timestamp": {"$gte": timestamp}}
        nearest = await self._events.find_one(
            at_or_after, {"timestamp": 1}, sort=[("session_id", ASCENDING), ("timestamp", ASCENDING)]
        )
        if nearest is None:
            return (await self.end(session_id)).seq + 1
        ties = {"session_id": session_id, "timestamp": nearest["timestamp"]}
        first = await self._events.find_one(ties, {"seq": 1}, sort=[("seq", ASCENDING)])
        return int(first["seq"]) if first else (await self.bounds(session_id)).first

    @asynccontextmanager
    async def fresh(self, at: Timestamp | None = None) -> AsyncIterator[AsyncClientSession]:
        """A session of the driver whose reads see every write until now, or up to the cluster time `at`."""
        async with start_session(self._database) as session:
            if at is None:
                await self._advanced(session)
            else:
                session.advance_operation_time(at)
            yield session

    async def now(self) -> Timestamp:
        """The cluster time of this moment: every event acknowledged before the call is not after it."""
        async with start_session(self._database) as session:
            return await self._advanced(session)

    @asynccontextmanager
    async def watch(self, session_ids: Iterable[str], *, start_at: Timestamp) -> AsyncIterator[Changes]:
        """The inserts of these sessions, from `start_at` inclusive; the change stream is open on entry."""
        chosen = {"operationType": "insert", "fullDocument.session_id": {"$in": sorted(session_ids)}}
        async with start_session(self._database) as session:
            stream: AsyncCollectionChangeStream[dict[str, Any]] = await settled(
                self._events.watch(
                    [{"$match": chosen}, _WATCH_FIELDS],
                    start_at_operation_time=start_at,
                    max_await_time_ms=MAX_AWAIT_MS,
                    batch_size=WATCH_BATCH,
                    session=session,
                )
            )
            async with stream:
                yield Changes(stream, session, start_at)

    def kept_for(self, retention_seconds: float) -> EventLog:
        """The same log, which keeps what is inserted by it for so long; 0 for ever."""
        return EventLog(self._database, retention_seconds=retention_seconds)

    def expires_at(self, timestamp: float) -> datetime | None:
        """When an event of that Unix time may be deleted; None for never."""
        if not self._retention_seconds:
            return None
        return datetime.fromtimestamp(timestamp + self._retention_seconds, UTC)

    async def keep(self, session_id: str, *, after: int, upto: int, retention_seconds: float) -> None:
        """Let the events with `after < seq <= upto` expire so long after their time; 0 for never."""
        milliseconds = {"$multiply": [{"$add": ["$timestamp", retention_seconds]}, 1000]}
        places = {"session_id": session_id, "seq": {"$gt": after, "$lte": upto}}
        expires_at = {"$toDate": milliseconds} if retention_seconds else None
        await self._events.update_many(places, [{"$set": {"expires_at": expires_at}}])

    async def insert(self, events: Sequence[Event]) -> Timestamp | None:
        """Insert `events`; a majority has them on return. Only for `Writer`, which keeps the fence.

        Returns the cluster time by which they stand, unless the server keeps none.
        Raises `BulkWriteError` at the first one whose place is taken; those before it are stored.
        """
        # Not again by the driver: the writer repeats it, and knows its own events when it finds them.
        documents = (event.to_document() for event in events)
        return await insert_in_order(self._database, self._events.name, documents)

    async def end(
        self,
        session_id: str,
        session: AsyncClientSession | None = None,
        *,
        remembered: int | None = None,
    ) -> End:
        """The log's end, also when its events have expired.

        `remembered` is the session's `last_seq`, where the caller has read it already.
        """
        found = await self._events.find_one(
            {"session_id": session_id},
            {"seq": 1, "timestamp": 1},
            sort=[("seq", DESCENDING)],
            session=session,
        )
        if found is not None:
            return End(found["seq"], found["timestamp"])
        return End(await self._sessions.last_seq(session_id) if remembered is None else remembered, 0.0)

    async def fresh_end(self, session_id: str) -> End:
        """The log's end, seeing every write until now."""
        async with self.fresh() as session:
            return await self.end(session_id, session)

    async def standing(self, wanted: Sequence[Event]) -> tuple[list[Event], End]:
        """What stands where `wanted` should go, and the log's end; both see every write until now."""
        session_id = wanted[0].session_id
        async with start_session(self._database) as session:
            at = await self._advanced(session)
            end = await self.end(session_id, session)
        found = await self.read(session_id, after=wanted[0].seq - 1, limit=len(wanted), at=at)
        return found, end

    async def _advanced(self, session: AsyncClientSession) -> Timestamp:
        await self._database.command("ping", session=session)
        if session.operation_time is None:
            raise PyMongoError("the server gives no operation time: it is not a replica set member")
        return session.operation_time


def token_time(token: Mapping[str, Any] | None) -> Timestamp | None:
    """The cluster time that a resume token begins with; None for one of another form.

    The token is a key string in hexadecimal digits, which begins with a timestamp: `82`, seconds, increment.
    """
    data = (token or {}).get("_data")
    if not isinstance(data, str) or not data.startswith("82") or len(data) < 18:
        return None
    return Timestamp(int(data[2:10], 16), int(data[10:18], 16))


class Changes:
    """An open change stream and how far it has come."""

    def __init__(
        self,
        stream: AsyncCollectionChangeStream[dict[str, Any]],
        session: AsyncClientSession,
        position: Timestamp,
    ) -> None:
        self._stream = stream
        self._session = session
        self.position = position  # everything before it has been returned; where another stream may begin

    async def next(self) -> Event | None:
        """The next event; None when the server had none for `MAX_AWAIT_MS`.

        Raises `PyMongoError` when the stream cannot go on; events may then be missing.
        """
        # What was majority-committed before an empty answer was asked for cannot come after it. The time that
        # the empty answer itself carries is newer than what it looked at. A mongos may still hold back what
        # one shard gave, until the others have come as far: only its token says how far that is.
        asked_at = self._session.operation_time
        change = await self._stream.try_next()
        if change is None:
            known = [time for time in (asked_at, token_time(self._stream.resume_token)) if time is not None]
            self.position = max(self.position, min(known, default=self.position))
            return None
        self.position = change["clusterTime"]
        return Event.from_document(change["fullDocument"])
