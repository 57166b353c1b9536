"""A position: how far one reader has come, and what it gets of what follows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

import msgspec

from tailrace.live.channel import CHUNK_BYTES, Batch
from tailrace.live.sse import Frame
from tailrace.metrics import SENT_EVENTS

__all__ = ["Position", "Until"]


class Until(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where a stream ends by itself."""

    kind: Literal["replay", "finish", "never"]  # after history; after the finish of `run_id`; not at all
    run_id: str | None = None


class Position:
    """Moves over frames without a hole, and gives their bytes.

    `seq` is the newest event that was taken, or filtered out. `at_end` is true from the `finish` on that ends
    the stream.
    """

    __slots__ = ("_last_run", "_only_run", "at_end", "seq")

    def __init__(self, after: int, *, until: Until, only_run: str | None) -> None:
        self.seq = after
        self.at_end = False
        self._last_run = until.run_id
        self._only_run = only_run

    def take(self, frames: Iterable[Frame]) -> bytes:
        """The bytes of `frames` that this reader gets: about a chunk at most, up to where its stream ends.

        Never past a hole: then `seq` stays before it.
        """
        chosen: list[bytes] = []
        size = 0
        for item in frames:
            if item.seq != self.seq + 1:
                break
            self.seq = item.seq
            if self._only_run is None or item.run_id == self._only_run:
                chosen.append(item.data)
                size += len(item.data)
            self.at_end = item.event_type == "finish" and item.run_id == self._last_run
            if self.at_end or size >= CHUNK_BYTES:
                break
        SENT_EVENTS.more(len(chosen))
        return b"".join(chosen)

    def take_batch(self, batch: Batch) -> bytes:
        """The same for a batch, which follows `seq`: nearly always all of it, and the very bytes."""
        if self._only_run is not None or self._last_run in batch.ended:
            return self.take(batch.frames)
        self.seq = batch.frames[-1].seq
        SENT_EVENTS.more(len(batch.frames))
        return batch.data
