"""The feed: one reader's bytes, from its cursor through history into live, without a seam."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from tailrace.eventlog import EventLog
from tailrace.events import Event
from tailrace.live.channel import Channel
from tailrace.live.hole import HOLE_SECONDS, Hole, found
from tailrace.live.hub import Hub
from tailrace.live.slots import Turn
from tailrace.live.sse import KEEP_ALIVE, Frame, frame, notice
from tailrace.live.subscription import Closing, Subscription
from tailrace.live.tail import Tail
from tailrace.metrics import DELIVERY, EMIT_DELIVERY, SENT_BYTES, SENT_EVENTS
from tailrace.mongo import patiently
from tailrace.tokens import Identity

__all__ = ["Feed", "State", "Until"]

CHUNK_BYTES = 64 * 1024  # handed over at once; twice that is what a reader that takes nothing holds here
FIRST_PAGE, PAGE = 100, 500  # events of history read at once: at first, and at most

# What a reader is fed from: its history at first, the channel, or history again for it was too slow.
State = Literal["replaying", "live", "lagged"]

# What a stream that is ended says last. One whose reader is gone says nothing.
_LAST_WORDS: Mapping[Closing, str] = {
    "draining": "stream.rotate",
    "token_expired": "stream.expired",
    "revoked": "stream.expired",
}


class Until(msgspec.Struct, frozen=True, kw_only=True):
    """Where a stream ends by itself."""

    kind: Literal["replay", "finish", "never"]  # after history; after the finish of `run_id`; not at all
    run_id: str | None = None


class Feed:
    """The chunks of one reader's stream: every event after `after`, in order, once.

    It joins the channel first and waits until the tail covers the session, then reads history up to at least
    that moment, then takes frames from the channel. History that is read before the tail covers the session
    misses what is written in between. A frame that is not `seq + 1` is never sent: the reader goes back to
    history for what is missing.
    """

    def __init__(
        self,
        event_log: EventLog,
        hub: Hub,
        tail: Tail,
        slots: Turn,
        *,
        session_id: str,
        reader: Identity,
        after: int,
        until: Until,
        only_run: str | None = None,
    ) -> None:
        self.subscription = Subscription()
        self.session_id = session_id
        self.reader = reader
        self._log = event_log
        self._hub = hub
        self._tail = tail
        self._slots = slots  # bounds the history reads of the reader's user, and of the whole process
        self._seq = after  # the newest event that was sent or filtered out
        self._until = until
        self._only_run = only_run
        self._ended = False
        self._hole = Hole(session_id)
        self.state: State = "replaying"

    async def chunks(self) -> AsyncGenerator[bytes, None]:
        """What to send, in pieces of whole frames, until the stream's end or `subscription.close`."""
        source = self._replay() if self._until.kind == "replay" else self._follow()
        async for chunk in source:
            if chunk:
                self.subscription.sent = True
                SENT_BYTES.more(len(chunk))
                yield chunk
        closing = self.subscription.closing
        if closing is not None and closing in _LAST_WORDS and not self._ended:
            yield notice(_LAST_WORDS[closing], {"reason": closing})

    @property
    def _over(self) -> bool:
        return self._ended or self.subscription.closing is not None

    async def _replay(self) -> AsyncIterator[bytes]:
        async for chunk in self._history(at=None):
            yield chunk

    async def _follow(self) -> AsyncIterator[bytes]:
        with self._hub.join(self.session_id, self.subscription) as channel:
            epoch = None
            while not self._over:
                if epoch != channel.epoch or channel.after(self._seq) is None:
                    lagged = epoch == channel.epoch
                    self.state = "lagged" if lagged else "replaying"
                    if lagged:
                        yield notice("stream.lagged", {"seq": self._seq})
                    while not self._over and not self._hub.covers(self.session_id):
                        yield await self._idle()
                    epoch = channel.epoch
                    async for chunk in self._caught_up(channel):
                        yield chunk
                async for chunk in self._live(channel, epoch):
                    yield chunk

    async def _caught_up(self, channel: Channel) -> AsyncIterator[bytes]:
        """History up to where the channel can go on."""
        before, kept = self._seq, channel.first
        if before + 1 < channel.hole:
            self._hole.stand(before)
        async for chunk in self._history(at=self._tail.position):
            yield chunk
        if not self._over and self._seq == before and kept > before + 1:
            yield await self._jump(kept)  # the channel has what the log has not, or not any more

    async def _live(self, channel: Channel, epoch: int) -> AsyncIterator[bytes]:
        """Frames from the channel, until it no longer holds what comes next."""
        self.state = "live"
        while not self._over and channel.epoch == epoch:
            frames = channel.after(self._seq)
            if frames is None:
                return
            before = self._seq
            chunk = self._taken(frames)
            if frames and self._seq == before:
                found("frame", self.session_id, after=before, seq=frames[0].seq)
                self._hole.stand(before)
                channel.lose()
                return
            if chunk:
                now = time.time()
                DELIVERY.observe(now - frames[0].timestamp)
                EMIT_DELIVERY.observe(now - frames[0].emitted_at)
            del frames  # a reader that is slow to take the chunk holds nothing else
            yield chunk if chunk or self._over else await self._idle()

    async def _history(self, at: Any) -> AsyncIterator[bytes]:
        """What the log holds after `seq`, page by page, seeing everything up to cluster time `at`."""
        at = at or await patiently(self._log.now)
        limit = FIRST_PAGE
        while not self._over:
            reading = asyncio.ensure_future(self._page(at, limit))
            reading.add_done_callback(lambda _: self.subscription.wake())
            try:
                while not (reading.done() or self._over):
                    yield await self._idle()
            finally:
                reading.cancel()
            if self._over:
                return  # of a session that is the reader's no more, not even this page
            page = reading.result()
            if page and page[0].seq != self._seq + 1:
                yield await self._jump(page[0].seq)
                continue
            before = self._seq
            chunk = self._taken(map(frame, page))
            taken = self._seq - before
            if taken:
                self._hole.passed()
            more = len(page) == limit or taken < len(page)
            limit = _next_limit(limit, taken, len(page), len(chunk))
            del page, reading  # a reader that is slow to take the chunk holds nothing else
            yield chunk
            if not more:
                return

    async def _page(self, at: Any, limit: int) -> Sequence[Event]:
        async with self._slots:
            return await patiently(
                lambda: self._log.read(self.session_id, after=self._seq, limit=limit, at=at)
            )

    async def _jump(self, seq: int) -> bytes:
        """Events between the reader and `seq` are gone: say so if they expired, else look again for them.

        Not for ever: what is not there after some seconds never will be.
        """
        bounds = await patiently(lambda: self._log.bounds(self.session_id))
        if bounds.first > self._seq + 1:
            self._seq = bounds.first - 1
            return notice("stream.reset", {"reason": "expired", "from_seq": bounds.first})
        if self._hole.look(self._seq, seq):
            await asyncio.sleep(HOLE_SECONDS)
            return b""
        self._seq = seq - 1
        return notice("stream.reset", {"reason": "hole", "from_seq": seq})

    async def _idle(self) -> bytes:
        """Wait for a wake; a comment if one is due, else nothing."""
        await self.subscription.wait()
        if not self.subscription.due:
            return b""
        self.subscription.due = False
        return KEEP_ALIVE

    def _taken(self, frames: Iterable[Frame]) -> bytes:
        """The bytes of `frames` that this reader gets: about a chunk at most, up to where its stream ends.

        Never past a hole: then `seq` stays before it.
        """
        chosen: list[bytes] = []
        size = 0
        for item in frames:
            if item.seq != self._seq + 1:
                break
            self._seq = item.seq
            if self._only_run is None or item.run_id == self._only_run:
                chosen.append(item.data)
                size += len(item.data)
            if item.event_type == "finish" and item.run_id == self._until.run_id:
                self._ended = True
                break
            if size >= CHUNK_BYTES:
                break
        SENT_EVENTS.more(len(chosen))
        return b"".join(chosen)


def _next_limit(limit: int, taken: int, read: int, size: int) -> int:
    """How many events to read next, for `size` bytes to come near a chunk and little to be read in vain."""
    if taken < read:
        return taken
    return limit if size > CHUNK_BYTES // 4 else min(PAGE, 4 * limit)
