"""The live side as one object: the hub, its tail, and the one timer of all streams."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping
from types import TracebackType
from typing import Any, Self, get_args

import msgspec

from tailrace.eventlog import EventLog
from tailrace.live.feed import Feed, State
from tailrace.live.hub import Hub
from tailrace.live.position import Until
from tailrace.live.revocation import Owners, Revocation
from tailrace.live.sink import Sink
from tailrace.live.slots import Slots
from tailrace.live.tail import Tail
from tailrace.metrics import STREAMS_OPENED
from tailrace.mongo import end_task
from tailrace.tokens import Identity

__all__ = ["Figures", "Live"]

HISTORY_READS = 32  # at once, in the process; a third of the driver's connections
READS_OF_A_USER = 4  # of them: what one user replays must not keep the others waiting
TICK_SECONDS = 1.0  # how late a token's expiry may be noticed
REST_AFTER = 500  # streams ticked before other tasks get a turn


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """The live side at a moment."""

    readers: Mapping[State, int]  # open streams, by what they are fed from
    sessions: int  # that have a reader here
    buffered_bytes: int  # frames kept for readers, in all channels
    tail_lag_seconds: float | None  # of the newest event, to the second; None while no stream is open
    tail_silence_seconds: float | None  # since the change stream answered; None while none is open


class Live:
    """Opens feeds while its context lasts, and ends those whose reader may not read any more."""

    def __init__(self, event_log: EventLog, *, owners: Owners, keep_alive_seconds: float) -> None:
        self._log = event_log
        self._keep_alive_seconds = keep_alive_seconds
        self._hub = Hub()
        self._tail = Tail(event_log, self._hub)
        self.history = Slots(each=READS_OF_A_USER, total=HISTORY_READS)  # whoever reads history takes one
        self._feeds: set[Feed] = set()
        self._reading: set[asyncio.Task[None]] = set()  # history, for feeds
        self._revocation = Revocation(owners, self._feeds)
        self._draining = False

    async def __aenter__(self) -> Self:
        self._tasks = [
            asyncio.create_task(self._tail.run(), name="tail-run"),
            asyncio.create_task(self._tick(), name="keep-alive"),
            asyncio.create_task(self._revocation.run(), name="revocation"),
        ]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.drain()
        for task in (*self._tasks, *self._reading):
            await end_task(task)

    def feed(
        self, session_id: str, *, reader: Identity, after: int, until: Until, only_run: str | None = None
    ) -> Feed:
        """A feed of the session's events after `after` for `reader`, its owner; `open` begins it."""
        return Feed(
            self._log,
            self._hub,
            self._tail,
            self.history.of(reader.user),
            self._spawn,
            session_id=session_id,
            reader=reader,
            after=after,
            until=until,
            only_run=only_run,
        )

    def open(self, feed: Feed, sink: Sink, *, then: Callable[[], object]) -> None:
        """Let `feed` send to `sink`, until its reader, or the server, must go; then call `then`.

        Its owner passes on what happens to the sink: `feed.wake` for room, `feed.close` for its loss.
        """

        def ended() -> None:
            self._feeds.discard(feed)
            then()

        self._feeds.add(feed)
        STREAMS_OPENED.add()
        feed.open(sink, then=ended)
        if self._draining:
            feed.close("draining")

    def sessions(self) -> frozenset[str]:
        """The sessions that have a reader here."""
        return self._hub.sessions

    def drain(self) -> None:
        """End every stream, and those that come: each is told to connect again, elsewhere."""
        self._draining = True
        for feed in tuple(self._feeds):
            feed.close("draining")

    def status(self) -> str | None:
        """What is wrong, in words; None when all is well."""
        return "the server is draining" if self._draining else self._tail.status()

    def figures(self) -> Figures:
        """What is true at this moment."""
        states = Counter(feed.state for feed in self._feeds)
        return Figures(
            readers={state: states[state] for state in get_args(State)},
            sessions=len(self._hub.sessions),
            buffered_bytes=self._hub.buffered,
            tail_lag_seconds=self._tail.lag,
            tail_silence_seconds=self._tail.silence,
        )

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.create_task(work, name="history")
        self._reading.add(task)
        task.add_done_callback(self._reading.discard)
        return task

    async def _tick(self) -> None:
        # A stream's silence is looked at twice in its keep-alive time: one that sent nothing in between gets
        # a comment. Its token is looked at each second.
        half = self._keep_alive_seconds / 2
        comments_at = time.monotonic() + half
        while True:
            await asyncio.sleep(min(TICK_SECONDS, max(0.0, comments_at - time.monotonic())))
            comments = time.monotonic() >= comments_at
            if comments:
                comments_at = time.monotonic() + half
            for nth, feed in enumerate(tuple(self._feeds), 1):
                if time.time() >= feed.reader.expires_at:
                    feed.close("token_expired")
                elif comments:
                    feed.tick()
                if nth % REST_AFTER == 0:
                    await asyncio.sleep(0)
