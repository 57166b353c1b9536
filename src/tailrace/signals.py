"""The signals of a process that waits for its children."""

from __future__ import annotations

import os
import select
import signal
from types import FrameType, TracebackType
from typing import Self

__all__ = ["Asked", "Signals"]

_END = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Asked(Exception):
    """Somebody asked this process to end."""


class Signals:
    """Counts the wishes to end, and wakes `pause` at each, and at a child's death.

    Nothing is raised out of a handler: a start or stop of a child is never cut in half.
    """

    def __init__(self) -> None:
        self.asked = 0

    def pause(self, seconds: float | None) -> None:
        """Wait until a signal comes or `seconds` are over. Raises `Asked` when asked to end."""
        if not self.asked:
            select.select([self._read], [], [], seconds)
            self._drain()
        if self.asked:
            raise Asked

    @property
    def hurry(self) -> bool:
        """Whether it was asked more than once."""
        return self.asked > 1

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe()
        os.set_blocking(self._read, False)
        os.set_blocking(self._write, False)
        self._before = {number: signal.signal(number, self._count) for number in _END}
        # Without a handler, a child's death writes nothing to the pipe.
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, lambda number, frame: None)
        self._wakeup = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        signal.set_wakeup_fd(self._wakeup)
        for number, handler in self._before.items():
            signal.signal(number, handler)
        os.close(self._read)
        os.close(self._write)

    def _count(self, number: int, frame: FrameType | None) -> None:
        self.asked += 1

    def _drain(self) -> None:
        try:
            while os.read(self._read, 4096):
                pass
        except BlockingIOError:
            return
