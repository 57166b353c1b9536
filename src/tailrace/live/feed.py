"""The feed: what one reader is sent, from its cursor through history into live, without a seam."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Literal

from tailrace.errors import ArchiveUnavailable, DocumentDamaged
from tailrace.eventlog import EventLog
from tailrace.events import Event
from tailrace.live.channel import CHUNK_BYTES, Batch, Channel
from tailrace.live.hole import HOLE_SECONDS, Hole, found
from tailrace.live.hub import Hub
from tailrace.live.position import Position, Until
from tailrace.live.sink import Sink
from tailrace.live.slots import Turn
from tailrace.live.sse import KEEP_ALIVE, frame, notice
from tailrace.live.tail import Tail
from tailrace.metrics import DELIVERY, EMIT_DELIVERY, SENT_BYTES
from tailrace.mongo import patiently
from tailrace.tokens import Identity

__all__ = ["Closing", "Feed", "State"]

log = logging.getLogger(__name__)

FIRST_PAGE, PAGE = 100, 500  # events of history read at once: at first, and at most

# What a reader is fed from: its history at first, the channel, or history again for it was too slow.
State = Literal["replaying", "live", "lagged"]

# The reader left; the server leaves; the token has expired; the session is not the reader's any more.
Closing = Literal["gone", "draining", "token_expired", "revoked", "error"]

# What a stream that is ended says last. One whose reader is gone says nothing.
_LAST_WORDS: Mapping[Closing, str] = {
    "draining": "stream.rotate",
    "error": "stream.rotate",
    "token_expired": "stream.expired",
    "revoked": "stream.expired",
}

# Runs a coroutine as a task that its caller need not keep.
Spawn = Callable[[Coroutine[Any, Any, None]], asyncio.Task[None]]


class Feed:
    """One reader's stream: every event after `after`, in order, once.

    It joins the channel first and waits until the tail covers the session, then reads history up to at least
    that moment, then takes frames from the channel. History that is read before the tail covers the session
    misses what is written in between. A frame that is not `seq + 1` is never sent: the reader goes back to
    history for what is missing.

    A task exists only while history is read. A live reader is an entry in its channel, and what comes is
    written to its sink there and then.
    """

    __slots__ = (
        "_at", "_channel", "_epoch", "_follows", "_hole", "_hub", "_log", "_over", "_sent", "_sink", "_slots",
        "_spawn", "_tail", "_task", "_then", "_woken", "reader", "session_id", "state",
    )  # fmt: skip

    def __init__(
        self,
        event_log: EventLog,
        hub: Hub,
        tail: Tail,
        slots: Turn,
        spawn: Spawn,
        *,
        session_id: str,
        reader: Identity,
        after: int,
        until: Until,
        only_run: str | None = None,
    ) -> None:
        self.session_id = session_id
        self.reader = reader
        self.state: State = "replaying"
        self._log = event_log
        self._hub = hub
        self._tail = tail
        self._slots = slots  # bounds the history reads of the reader's user, and of the whole process
        self._spawn = spawn
        self._at = Position(after, until=until, only_run=only_run)
        self._follows = until.kind != "replay"
        self._hole = Hole(session_id)
        self._channel: Channel | None = None  # None for a replay
        self._epoch = 0  # the channel's, when history was last read
        self._task: asyncio.Task[None] | None = None  # while history is read
        self._woken = _NEVER
        self._sent = False  # something was sent since the last keep-alive tick
        self._over = False

    def open(self, sink: Sink, *, then: Callable[[], object]) -> None:
        """Send to `sink` from now on, and call `then` once when the stream has ended, whatever ended it."""
        self._sink = sink
        self._then = then
        if self._follows:
            self._channel = self._hub.join(self.session_id, self)
        self._read_history()

    def wake(self) -> None:
        """Look again: the channel changed, or the sink has room."""
        if self._over:
            return
        if self._task is not None:
            self._woken.set()
            return
        try:
            self._pull()
        except Exception as error:
            self._fail(error)

    def tick(self) -> None:
        """Send a comment if nothing was sent since the last tick."""
        if self._sent or self._over:
            self._sent = False
        elif not self._sink.full:
            self._write(KEEP_ALIVE)

    def close(self, reason: Closing) -> None:
        """End the stream now: nothing but a last word is sent any more."""
        if self._over:
            return
        if (words := _LAST_WORDS.get(reason)) is not None:
            self._write(notice(words, {"reason": reason}))
        self._end()

    def _end(self) -> None:
        self._over = True
        if self._channel is not None:
            self._hub.leave(self.session_id, self._channel, self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()
        self._sink.end()
        self._then()

    def _fail(self, error: Exception) -> None:
        """The reader shall connect again: the status was sent long ago."""
        words = {"action": "stream", "session_id": self.session_id, "error": str(error)[:300]}
        # The first says what is to be done without a traceback; the other is told of where it is met, once.
        if isinstance(error, DocumentDamaged):
            log.error("A stream failed: stored data cannot be read", extra=words)
        elif not isinstance(error, ArchiveUnavailable):
            log.error("A stream failed", exc_info=error, extra=words)
        self.close("error")

    def _read_history(self) -> None:
        self._woken = asyncio.Event()
        self._task = self._spawn(self._catch_up())

    async def _catch_up(self) -> None:
        """History, up to its end or to where the channel can go on."""
        try:
            if self._channel is None:
                await self._history(at=None)
            else:
                await self._to_channel(self._channel)
        except Exception as error:
            if not self._over:
                self._fail(error)
        self._task, self._woken = None, _NEVER
        if self._channel is None and not self._over:
            self._end()
        self.wake()

    async def _to_channel(self, channel: Channel) -> None:
        while not (self._over or self._hub.covers(self.session_id)):
            await self._change()
        self._epoch = channel.epoch
        before, kept = self._at.seq, channel.first
        if before + 1 < channel.hole:
            self._hole.stand(before)
        await self._history(at=self._tail.position)
        if not self._over and self._at.seq == before and kept > before + 1:
            await self._jump(kept)  # the channel has what the log has not, or not any more
        self.state = "live"

    def _pull(self) -> None:
        """Send what the channel holds; go back to history when it no longer holds what comes next."""
        channel = self._channel
        assert channel is not None  # a replay has a task until it is over
        while not (self._over or self._sink.full):
            if channel.epoch != self._epoch:
                self.state = "replaying"
                return self._read_history()
            batch = channel.after(self._at.seq)
            if batch is None:
                self.state = "lagged"
                self._write(notice("stream.lagged", {"seq": self._at.seq}))
                return self._read_history()
            if not batch.frames:
                return None
            if batch.frames[0].seq != self._at.seq + 1:
                found("frame", self.session_id, after=self._at.seq, seq=batch.frames[0].seq)
                self._hole.stand(self._at.seq)
                return channel.lose()
            self._hand_on(batch)
            if batch.newest:
                return None
        return None

    def _hand_on(self, batch: Batch) -> None:
        if data := self._at.take_batch(batch):
            now = time.time()
            DELIVERY.observe(now - batch.frames[0].timestamp)
            EMIT_DELIVERY.observe(now - batch.frames[0].emitted_at)
            self._write(data)
        if self._at.at_end:
            self._end()

    async def _history(self, at: Any) -> None:
        """Send what the log holds after `seq`, page by page, seeing everything up to cluster time `at`."""
        at = at or await patiently(self._log.now)
        limit = FIRST_PAGE
        while not self._over:
            page = await self._page(at, limit)
            if self._over:
                return None  # of a session that is the reader's no more, not even this page
            if page and page[0].seq != self._at.seq + 1:
                await self._jump(page[0].seq)
                continue
            before = self._at.seq
            data = self._at.take(map(frame, page))
            taken = self._at.seq - before
            if taken:
                self._hole.passed()
            self._write(data)
            if self._at.at_end:
                return self._end()
            if len(page) < limit and taken == len(page):
                return None
            limit = _next_limit(limit, taken, len(page), len(data))
            del page, data  # a reader that is slow to take them holds nothing else
            while self._sink.full and not self._over:
                await self._change()
        return None

    async def _page(self, at: Any, limit: int) -> Sequence[Event]:
        async with self._slots:
            return await patiently(
                lambda: self._log.read(self.session_id, after=self._at.seq, limit=limit, at=at)
            )

    async def _jump(self, seq: int) -> None:
        """Events between the reader and `seq` are gone: say so if they expired, else look again for them.

        Not for ever: what is not there after some seconds never will be.
        """
        bounds = await patiently(lambda: self._log.bounds(self.session_id))
        if self._over:
            return
        if bounds.first > self._at.seq + 1:
            self._at.seq = bounds.first - 1
            self._write(notice("stream.reset", {"reason": "expired", "from_seq": bounds.first}))
        elif self._hole.look(self._at.seq, seq):
            await asyncio.sleep(HOLE_SECONDS)
        else:
            self._at.seq = seq - 1
            self._write(notice("stream.reset", {"reason": "hole", "from_seq": seq}))

    async def _change(self) -> None:
        """Wait for a wake; one that came since the last wait counts."""
        await self._woken.wait()
        self._woken.clear()

    def _write(self, data: bytes) -> None:
        if data:
            self._sent = True
            SENT_BYTES.more(len(data))
            self._sink.write(data)


_NEVER = asyncio.Event()  # for a feed that waits for nothing


def _next_limit(limit: int, taken: int, read: int, size: int) -> int:
    """How many events to read next, for `size` bytes to come near a chunk and little to be read in vain."""
    if taken < read:
        return taken
    return limit if size > CHUNK_BYTES // 4 else min(PAGE, 4 * limit)
