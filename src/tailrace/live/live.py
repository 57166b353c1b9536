"""The live side as one object: the hub, its tail, and the one timer of all streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from tailrace.eventlog import EventLog
from tailrace.live.feed import Feed, Until
from tailrace.live.hub import Hub
from tailrace.live.revocation import Owners, Revocation
from tailrace.live.tail import Tail
from tailrace.mongo import end_task
from tailrace.tokens import Identity

__all__ = ["Live"]

HISTORY_READS = 32  # at once, in the process; a third of the driver's connections
TICK_SECONDS = 1.0  # how late a token's expiry may be noticed
REST_AFTER = 500  # streams ticked before other tasks get a turn


class Live:
    """Opens feeds while its context lasts, and ends those whose reader may not read any more."""

    def __init__(self, event_log: EventLog, *, owners: Owners, keep_alive_seconds: float) -> None:
        self._log = event_log
        self._keep_alive_seconds = keep_alive_seconds
        self._hub = Hub()
        self._tail = Tail(event_log, self._hub)
        self._slots = asyncio.Semaphore(HISTORY_READS)
        self._feeds: set[Feed] = set()
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
        for task in self._tasks:
            await end_task(task)

    def feed(
        self, session_id: str, *, reader: Identity, after: int, until: Until, only_run: str | None = None
    ) -> Feed:
        """A feed of the session's events after `after` for `reader`, its owner; it runs inside `opened`."""
        return Feed(
            self._log,
            self._hub,
            self._tail,
            self._slots,
            session_id=session_id,
            reader=reader,
            after=after,
            until=until,
            only_run=only_run,
        )

    @contextmanager
    def opened(self, feed: Feed) -> Iterator[None]:
        """Keep the feed's stream alive with comments, and end it when its reader, or the server, must go."""
        if self._draining:
            feed.subscription.close("draining")
        self._feeds.add(feed)
        try:
            yield
        finally:
            self._feeds.discard(feed)

    def sessions(self) -> frozenset[str]:
        """The sessions that have a reader here."""
        return self._hub.sessions

    def drain(self) -> None:
        """End every stream, and those that come: each is told to connect again, elsewhere."""
        self._draining = True
        for feed in self._feeds:
            feed.subscription.close("draining")

    def status(self) -> str | None:
        """What is wrong, in words; None when all is well."""
        return "the server is draining" if self._draining else self._tail.status()

    @property
    def streams(self) -> int:
        """The open streams."""
        return len(self._feeds)

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
                    feed.subscription.close("token_expired")
                elif comments:
                    feed.subscription.tick()
                if nth % REST_AFTER == 0:
                    await asyncio.sleep(0)
