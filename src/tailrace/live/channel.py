"""A channel: one session's newest frames in this process, shared by all its readers.

Readers have no buffers. Each keeps a position, and takes what lies after it from here; one that has fallen
behind what is kept here reads history. So a slow reader costs nothing, and memory is bounded per session.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

import msgspec

from tailrace.live.sse import Frame

__all__ = ["CHUNK_BYTES", "MAX_BYTES", "Batch", "Channel", "Reader"]

MAX_BYTES = 256 * 1024  # of frames kept; a reader further behind is served from history
CHUNK_BYTES = 64 * 1024  # handed over at once; about twice that is what waits for a reader that takes nothing
TURN = 16  # readers woken before others get a turn: the tail needs about ten to read an answer


class Reader(Protocol):
    """Whoever waits for a channel's frames."""

    def wake(self) -> None:
        """Look at the channel: it has more, or lost what it had. Must not raise."""
        ...


class Batch(msgspec.Struct, frozen=True, gc=False):
    """Frames that follow each other, and their bytes, joined once for all who stand before the first."""

    frames: Sequence[Frame]
    data: bytes
    ended: frozenset[str]  # the runs whose `finish` is among them
    newest: bool  # nothing follows them yet


class Channel:
    """The newest frames of a session, contiguous by `seq`, and the readers that wait for more."""

    __slots__ = ("_again", "_batch", "_bytes", "_frames", "_waking", "epoch", "hole", "readers")

    def __init__(self) -> None:
        self.readers: set[Reader] = set()
        self.epoch = 0  # grows when events may have been missed; every reader then reads history again
        self.hole = 0  # the newest frame before which one was missing
        self._frames: list[Frame] = []
        self._bytes = 0
        self._batch: Batch | None = None  # the last that was asked for
        self._waking = False  # a round is due, or under way
        self._again = False  # something came since the round began

    @property
    def size(self) -> int:
        """Bytes kept."""
        return self._bytes

    @property
    def first(self) -> int:
        """The oldest frame's `seq`; 0 when none is kept."""
        return self._frames[0].seq if self._frames else 0

    @property
    def last(self) -> int:
        """The newest frame's `seq`; 0 when none is kept."""
        return self._frames[-1].seq if self._frames else 0

    def publish(self, frame: Frame) -> bool:
        """Add a frame and wake the readers. A known one is skipped: two overlapping change streams saw it.

        False when a frame is missing before it: readers behind that read history.
        """
        last = self.last
        if last and frame.seq <= last:
            return True
        whole = not last or frame.seq == last + 1
        if not whole:
            self.hole = frame.seq
            self.lose()
        self._frames.append(frame)
        self._bytes += len(frame.data)
        self._batch = None
        if self._bytes > MAX_BYTES:
            self._drop_oldest_half()
        self.wake()
        return whole

    def after(self, seq: int) -> Batch | None:
        """About a chunk of the frames that follow `seq`, none if there are none yet.

        None when those are not here (any more). The first of them is not `seq + 1` where the order is broken.
        """
        if not self._frames or self._frames[-1].seq <= seq:
            return _NOTHING
        newer = self._frames[-1].seq - seq
        if newer > len(self._frames):
            return None
        # Nearly always, all readers stand at the same place.
        first = self._frames[-newer]
        if self._batch is None or self._batch.frames[0] is not first:
            self._batch = _batch(self._frames[-newer:])
        return self._batch

    def lose(self) -> None:
        """Events may have been missed: forget the frames and begin a new epoch."""
        self.epoch += 1
        self._clear()
        self.wake()

    def wake(self) -> None:
        """Let every reader look, in rounds: what comes before a reader's turn goes with it."""
        self._again = True
        if self.readers and not self._waking:
            self._waking = True
            asyncio.get_running_loop().call_soon(self._wake_all)

    def _wake_all(self) -> None:
        self._again = False
        self._wake(list(self.readers))

    def _wake(self, readers: list[Reader]) -> None:
        for _ in range(min(TURN, len(readers))):
            readers.pop().wake()
        if readers:
            asyncio.get_running_loop().call_soon(self._wake, readers)
            return
        self._waking = False
        if self._again:
            self.wake()

    def _clear(self) -> None:
        self._frames.clear()
        self._bytes = 0
        self._batch = None

    def _drop_oldest_half(self) -> None:
        kept: list[Frame] = []
        size = 0
        for frame in reversed(self._frames):
            size += len(frame.data)
            if kept and size > MAX_BYTES // 2:
                break
            kept.append(frame)
        self._frames = kept[::-1]
        self._bytes = sum(len(frame.data) for frame in kept)


_NOTHING = Batch((), b"", frozenset(), True)


def _batch(frames: Sequence[Frame]) -> Batch:
    """The first of `frames`, up to a chunk, or to where their order breaks."""
    chosen: list[Frame] = []
    size = 0
    for frame in frames:
        if size >= CHUNK_BYTES or (chosen and frame.seq != chosen[-1].seq + 1):
            break
        chosen.append(frame)
        size += len(frame.data)
    data = chosen[0].data if len(chosen) == 1 else b"".join([frame.data for frame in chosen])
    ended = frozenset(frame.run_id for frame in chosen if frame.event_type == "finish")
    return Batch(chosen, data, ended, len(chosen) == len(frames))
