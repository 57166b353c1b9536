"""A channel: one session's newest frames in this process, shared by all its readers.

Readers have no buffers. Each keeps a position, and takes what lies after it from here; one that has fallen
behind what is kept here reads history. So a slow reader costs nothing, and memory is bounded per session.
"""

from __future__ import annotations

from collections.abc import Sequence

from tailrace.live.sse import Frame
from tailrace.live.subscription import Subscription

__all__ = ["MAX_BYTES", "Channel"]

MAX_BYTES = 256 * 1024  # of frames kept; a reader further behind is served from history


class Channel:
    """The newest frames of a session, contiguous by `seq`, and the subscriptions that wait for more."""

    __slots__ = ("_bytes", "_frames", "epoch", "hole", "subscriptions")

    def __init__(self) -> None:
        self.subscriptions: set[Subscription] = set()
        self.epoch = 0  # grows when events may have been missed; every reader then reads history again
        self.hole = 0  # the newest frame before which one was missing
        self._frames: list[Frame] = []
        self._bytes = 0

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
        if self._bytes > MAX_BYTES:
            self._drop_oldest_half()
        self.wake()
        return whole

    def after(self, seq: int) -> Sequence[Frame] | None:
        """The frames that follow `seq` without a hole; None when those are not here (any more)."""
        if not self._frames or self._frames[-1].seq <= seq:
            return ()
        newer = self._frames[-1].seq - seq
        return self._frames[-newer:] if newer <= len(self._frames) else None

    def lose(self) -> None:
        """Events may have been missed: forget the frames and begin a new epoch."""
        self.epoch += 1
        self._clear()
        self.wake()

    def wake(self) -> None:
        """Let every reader look again."""
        for subscription in self.subscriptions:
            subscription.wake()

    def _clear(self) -> None:
        self._frames.clear()
        self._bytes = 0

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
