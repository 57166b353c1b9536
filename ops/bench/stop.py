"""The wish that the benchmark end before its time: Ctrl-C, or SIGTERM."""

from __future__ import annotations

import math
import signal
import time
from types import FrameType

__all__ = ["Stop"]

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_ONE_WISH_SECONDS = 2.0  # a terminal, or `make`, may pass one on twice: that must not cut the end in half


class Stop:
    """Raises `KeyboardInterrupt` where the benchmark is when it is told to stop; each time it is told."""

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None  # what told it first; None as long as nothing did
        self._told_at = -math.inf
        for each in _SIGNALS:
            signal.signal(each, self._heard)

    def ignored(self) -> None:
        """Nothing is raised from now on."""
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_IGN)

    def _heard(self, number: int, frame: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number)
        now = time.monotonic()
        if now > self._told_at + _ONE_WISH_SECONDS:
            self._told_at = now
            raise KeyboardInterrupt
