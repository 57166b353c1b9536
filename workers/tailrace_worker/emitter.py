"""The emitter: takes an agent's events as they come and appends them in groups, in order."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec

from tailrace.events import Draft, Event
from tailrace.metrics import APPEND_EVENTS, APPEND_SECONDS
from tailrace.writer import Writer

__all__ = ["Emitter"]

MAX_QUEUED = 2_000  # events; then the agent waits for MongoDB
MAX_QUEUED_CHARACTERS = 4 * 1024 * 1024  # of delta and output text, likewise; one batch never holds more
MAX_MERGED_CHARACTERS = 16 * 1024  # of one joined delta; far below what one event may carry
MERGE_FROM = 64  # queued events: past this the log is behind, and neighbouring deltas become one


class Emitter:
    """Appends what `emit` takes, one group at a time: whatever gathered while the last append was in flight.

    No timer: an idle emitter appends an event at once, a busy one in batches that grow with the delay.
    `on_stored` is told of each group when a majority has it; it must not raise.
    """

    def __init__(
        self, writer: Writer, *, on_stored: Callable[[Sequence[Event]], None] = lambda _: None
    ) -> None:
        self._writer = writer
        self._on_stored = on_stored
        self._queue: deque[Draft] = deque()
        self._characters = 0
        self._changed = asyncio.Condition()
        self._in_flight = False
        self._failure: BaseException | None = None
        self._closing = False

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._append_groups(), name="emitter")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Store what is queued; after an error of the log, give up what it cannot take."""
        async with self._changed:
            self._closing = True
            self._changed.notify_all()
        await self._task
        if self._failure is not None and error is None:
            raise self._failure

    async def emit(self, draft: Draft) -> None:
        """Queue `draft`; waits while the queue is full.

        Raises what an earlier append raised: `Fenced` when the run is no longer this attempt's.
        """
        emitted_at = time.time()
        async with self._changed:
            await self._changed.wait_for(self._has_room)
            self._check()
            self._queue.append(msgspec.structs.replace(draft, emitted_at=emitted_at))
            self._characters += _size(draft)
            self._changed.notify_all()

    async def flush(self) -> None:
        """Return when a majority has everything that was emitted before; raises like `emit`."""
        async with self._changed:
            await self._changed.wait_for(lambda: self._failure or not (self._queue or self._in_flight))
            self._check()

    def _has_room(self) -> bool:
        return self._failure is not None or (
            len(self._queue) < MAX_QUEUED and self._characters < MAX_QUEUED_CHARACTERS
        )

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure

    async def _append_groups(self) -> None:
        while group := await self._next_group():
            began = time.monotonic()
            try:
                stored = await self._writer.append(group)
                APPEND_SECONDS.observe(time.monotonic() - began)
                APPEND_EVENTS.observe(len(group))
                self._on_stored(stored)
            except BaseException as error:
                await self._settle(error)
                if not isinstance(error, Exception):
                    raise
                return
            await self._settle(None)

    async def _next_group(self) -> Sequence[Draft]:
        async with self._changed:
            await self._changed.wait_for(lambda: self._queue or self._closing)
            group = list(self._queue)
            self._queue.clear()
            self._characters = 0
            self._in_flight = bool(group)
            self._changed.notify_all()
        return merged(group) if len(group) >= MERGE_FROM else group

    async def _settle(self, failure: BaseException | None) -> None:
        async with self._changed:
            self._in_flight = False
            self._failure = failure
            self._changed.notify_all()


def merged(group: Sequence[Draft]) -> list[Draft]:
    """`group` with neighbouring text deltas of one message joined; nothing else changes place."""
    joined: list[Draft] = []
    for draft in group:
        if joined and _continues(joined[-1], draft):
            before = joined[-1]
            data = {**before.data, "delta": before.data["delta"] + draft.data["delta"]}
            joined[-1] = msgspec.structs.replace(before, data=data)
        else:
            joined.append(draft)
    return joined


def _continues(before: Draft, draft: Draft) -> bool:
    return (
        draft.event_type in ("message_delta", "reasoning_delta")
        and before.event_type == draft.event_type
        and before.message_id == draft.message_id
        and before.data.get("index") == draft.data.get("index")
        and before.data.get("content_type") == draft.data.get("content_type")
        and _size(before) + _size(draft) <= MAX_MERGED_CHARACTERS
    )


def _size(draft: Draft) -> int:
    return sum(len(value) for value in draft.data.values() if isinstance(value, str))
