"""An outage: how long and how often a stream has tried to come back, and when to try next."""

from __future__ import annotations

import random
import time

from tailrace.client.errors import Problem
from tailrace.client.frame import Frame

__all__ = ["RETRY_SECONDS", "Outage", "pause"]

RETRY_SECONDS = 3.0  # until the server says otherwise by `retry:`
LONGEST_PAUSE_SECONDS = 20.0
HEALTHY_SECONDS = 5.0  # a connection that lived longer was a good one, events or not


class Outage:
    """How long and how often a stream has tried to come back."""

    def __init__(self, patience: float | None) -> None:
        self.retry_seconds = RETRY_SECONDS
        self._patience = patience
        self._attempts = 0
        self._connected_at: float | None = None
        self._since: float | None = None

    @property
    def begins(self) -> bool:
        """Whether nothing was wrong before the attempt that has just ended."""
        return self._attempts == 0

    def connected(self) -> None:
        """Note that the server has opened a stream."""
        self._connected_at = time.monotonic()

    def hears(self, frame: Frame) -> None:
        """Note what the server has sent."""
        # Only an event, or a long life, proves a connection: a server that greets and closes must not be
        # asked again at once for ever.
        if frame.seq is not None:
            self._over()

    def ends(self, trouble: Exception | None) -> None:
        """Note the end of a connection, or of an attempt at one. Raises `TimeoutError` out of patience."""
        now = time.monotonic()
        if self._connected_at is not None and now - self._connected_at > HEALTHY_SECONDS:
            self._over()
        self._connected_at = None
        self._since = now if self._since is None else self._since
        if self._patience is not None and now - self._since > self._patience:
            raise TimeoutError from trouble

    def pause(self, trouble: Exception | None) -> float:
        """Seconds to wait before the next attempt; at least what the server asked for."""
        seconds = pause(self._attempts, self.retry_seconds)
        self._attempts += 1
        asked = trouble.retry_after if isinstance(trouble, Problem) else None
        return max(seconds, asked or 0.0)

    def _over(self) -> None:
        self._attempts = 0
        self._since = None


def pause(attempt: int, retry_seconds: float) -> float:
    """Seconds: a tenth of the server's `retry:` at first, doubled each time; jitter spreads a crowd."""
    longest: float = min(LONGEST_PAUSE_SECONDS, retry_seconds / 10 * 2 ** min(attempt, 10))
    return longest * random.uniform(0.5, 1.0)
