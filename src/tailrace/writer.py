"""The writer: one run's place in a session's log, and the fence that keeps a lost run from writing on."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime

import msgspec
from bson import Timestamp
from pymongo.errors import BulkWriteError

from tailrace.carry import carry_data
from tailrace.digest import Digest
from tailrace.errors import Fenced
from tailrace.eventlog import End, EventLog
from tailrace.events import Draft, Event, event_id
from tailrace.mongo import patiently

__all__ = ["Writer"]


class Writer:
    """One attempt's place in a session's log. Not for use by two tasks at once.

    `first_seq` is the run's first event, if it is known. `behind` is what was the log's end before this
    attempt took the run, if that was looked at: whoever has it later then writes behind that too, and one of
    the two collides. `digest` is that of the run's events up to `behind`, where nobody else can add to them;
    without it, a `finish` tells the digest of what is read from `first_seq` on. `finishing` is told the place
    of a `finish` before that is written there.
    """

    def __init__(
        self,
        event_log: EventLog,
        session_id: str,
        *,
        run_id: str,
        attempt: int,
        owns: Callable[[], Awaitable[bool]],
        first_seq: int | None = None,
        behind: End | None = None,
        digest: Digest | None = None,
        finishing: Callable[[int], Awaitable[None]] | None = None,
    ) -> None:
        self._log = event_log
        self._session_id = session_id
        self._run_id = run_id
        self._attempt = attempt
        self._owns = owns
        self._first_seq = first_seq or 1
        self._end = behind
        self._digest = digest
        self._finishing = finishing
        self._stands_at: Timestamp | None = None  # the cluster time of the newest insert, if it is known

    @property
    def last_seq(self) -> int:
        """The log's end as this writer last saw it; 0 if it has not looked yet."""
        return self._end.seq if self._end else 0

    async def append(self, drafts: Sequence[Draft]) -> list[Event]:
        """Append `drafts` in order; on return a majority has them. Waits while MongoDB is away.

        Raises `Fenced` when the run has another attempt or has ended; of the drafts, a prefix may then stand
        in the log, and nothing more may be written.
        """
        stored: list[Event] = []
        pending: Sequence[Draft] = drafts
        while pending:
            events = await self._placed(pending)
            count = await self._stored(events)
            stored += events[:count]
            pending = [*events[count:], *pending[len(events) :]]
        return stored

    async def take_over(self, drafts: Sequence[Draft]) -> Event | None:
        """Append `drafts` as an attempt's first write, unless the run has its `finish`: then return that.

        The attempt before may still be writing, its `finish` even. So the place to write is the one right
        behind what was looked at; if it is taken, look again. Once this has written, the attempt before can
        only collide.
        """
        while True:
            self._end = await self._looked()
            finish = await patiently(
                lambda: self._log.finish_of(self._session_id, self._run_id, after=self._first_seq - 1)
            )
            if finish is not None:
                return finish
            events = await self._placed(drafts)
            count = await self._stored(events)
            if count:
                # The rest with its times: a first try of it may still be under way.
                await self.append([*events[count:], *drafts[len(events) :]])
                return None

    async def begin(self, draft: Draft, *, behind: End | None = None) -> Event:
        """Append `draft` as the run's first event, unless the run has events: then return its first.

        Whoever stored the run and whoever found it abandoned may both do this, at once. `behind` is what
        was the log's end before the run was stored: while nothing stands behind it, the run has no events,
        and none need be looked for.
        """
        self._end = behind
        fenced: Fenced | None = None
        while True:
            if self._end is None:
                self._end = await patiently(lambda: self._log.fresh_end(self._session_id))
                first = await patiently(
                    lambda: self._log.first_of(self._session_id, self._run_id, after=self._first_seq - 1)
                )
                if first is not None:
                    return first
                if fenced is not None:
                    raise fenced
            events = await self._placed([draft])
            try:
                if await self._stored(events):
                    return events[0]
            except Fenced as error:
                fenced = error  # it has gone on without us: then it has a first event
            self._end = None

    async def _looked(self) -> End:
        """The log's end, if the run is still this attempt's: looked at before the fence is.

        A later attempt can then only write behind it, where this one collides. The other way round, an
        attempt frozen between the two would write behind its successor unnoticed.
        """
        end = await patiently(lambda: self._log.fresh_end(self._session_id))
        if not await patiently(self._owns):
            raise Fenced
        return end

    async def _placed(self, drafts: Sequence[Draft]) -> list[Event]:
        """The first of `drafts`, as events behind the log's end."""
        if self._end is None:
            self._end = await self._looked()
        if self._digest is None:
            drafts = _before_finish(drafts)
            if drafts[0].event_type == "finish":
                self._digest = await self._read_digest(upto=self._end.seq)
        timestamp = _time_at(drafts[0], self._end)
        expires_at = self._log.expires_at(timestamp)
        events: list[Event] = []
        for seq, draft in enumerate(drafts, self._end.seq + 1):
            placed = draft if draft.event_type != "finish" else await self._finished(draft, events, seq)
            events.append(self._place(placed, seq, timestamp, expires_at))
        return events

    async def _finished(self, finish: Draft, before: Sequence[Event], seq: int) -> Draft:
        """The `finish` for that place, right behind `before`."""
        if self._finishing is not None:
            await self._finishing(seq)
        assert self._digest is not None  # `_placed` has read it, if it was not known
        digest = _chained(self._digest, before).hexdigest()
        return msgspec.structs.replace(finish, data={**finish.data, "digest": digest})

    async def _read_digest(self, *, upto: int) -> Digest:
        return Digest(
            await patiently(
                lambda: self._log.digest(
                    self._session_id,
                    self._run_id,
                    after=self._first_seq - 1,
                    upto=upto,
                    at=self._stands_at,
                )
            )
        )

    def _place(self, draft: Draft, seq: int, timestamp: float, expires_at: datetime | None) -> Event:
        carried = draft if isinstance(draft, Event) else _carried(draft)
        data = carried.data
        if draft.event_type == "finish":
            data = {**data, "last_seq": seq}
        elif draft.event_type == "attempt_superseded":
            data = {**data, "to_seq": seq - 1}
        return Event(
            event_id=event_id(self._session_id, seq),
            session_id=self._session_id,
            run_id=self._run_id,
            attempt=self._attempt,
            seq=seq,
            timestamp=timestamp,
            event_type=carried.event_type,
            message_id=carried.message_id,
            parent_ids=carried.parent_ids,
            tags=carried.tags,
            metadata=carried.metadata,
            trace_id=carried.trace_id,
            observation_id=carried.observation_id,
            data=data,
            emitted_at=_if_waited(carried.emitted_at, timestamp),
            expires_at=expires_at,
        )

    async def _stored(self, events: list[Event]) -> int:
        """How many of `events` stand in the log now; fewer than all when another writer was there first."""
        count = await patiently(lambda: self._try(events))
        if count:
            self._end = End(events[count - 1].seq, events[count - 1].timestamp)
            if self._digest is not None:
                self._digest = _chained(self._digest, events[:count])
        return count

    async def _try(self, events: list[Event]) -> int:
        try:
            self._stands_at = await self._log.insert(events)
        except BulkWriteError as error:
            self._stands_at = None
            at = _first_duplicate(error)
            # What stands before the collision may yet be rolled back, if no majority is known to have it.
            unsure = bool((error.details or {}).get("writeConcernErrors"))
            return await self._collided(events, 0 if unsure else at)
        return len(events)

    async def _collided(self, events: list[Event], at: int) -> int:
        """Our own events there are a write whose answer was lost; another's are the fence, or a neighbour."""
        found, end = await self._log.standing(events[at:])
        own = 0
        while own < len(found) and _same(found[own], events[at + own]):
            own += 1
        if own == 0:
            if not await self._owns():
                raise Fenced
            self._end = end
            self._digest = None  # it may be of this run, of an attempt before
        return at + own


def _time_at(draft: Draft, end: End) -> float:
    """The time of what follows `end`: for an event that had this very place before, once more its own.

    The write that gave it the place may still be under way, and what it stores must be known as ours.
    """
    if isinstance(draft, Event) and draft.seq == end.seq + 1 and draft.timestamp >= end.timestamp:
        return draft.timestamp
    return max(round(time.time(), 6), end.timestamp)


def _chained(digest: Digest, events: Sequence[Event]) -> Digest:
    """The digest with what follows, which readers are told in these very bytes."""
    longer = Digest(digest.hexdigest())
    for event in events:
        if event.event_type != "finish":
            longer.update(event.to_json())
    return longer


def _before_finish(drafts: Sequence[Draft]) -> Sequence[Draft]:
    """The drafts up to a `finish`, or it alone: what its digest covers must stand first."""
    for nth, draft in enumerate(drafts):
        if draft.event_type == "finish":
            return drafts[: nth or 1]
    return drafts


def _carried(draft: Draft) -> Draft:
    """`draft` as MongoDB takes it. Its ids are ours; deltas, which are many, have no tags or metadata."""
    data = carry_data(draft.data)
    if not (draft.tags or draft.metadata):
        return msgspec.structs.replace(draft, data=data)
    kept = carry_data({"metadata": draft.metadata, "tags": draft.tags})
    return msgspec.structs.replace(draft, data=data, metadata=kept["metadata"], tags=tuple(kept["tags"]))


def _if_waited(emitted_at: float | None, timestamp: float) -> float | None:
    """Where it says nothing that the timestamp does not, it need not be stored."""
    return emitted_at if emitted_at is not None and timestamp - emitted_at > 0.001 else None


def _same(found: Event, wanted: Event) -> bool:
    return (found.run_id, found.attempt, found.event_type, found.timestamp, found.data) == (
        wanted.run_id,
        wanted.attempt,
        wanted.event_type,
        wanted.timestamp,
        wanted.data,
    )


def _first_duplicate(error: BulkWriteError) -> int:
    """The index of the event that collided; re-raises an error of another kind."""
    for found in (error.details or {}).get("writeErrors", ()):
        if found.get("code") == 11_000:
            return int(found["index"])
    raise error
