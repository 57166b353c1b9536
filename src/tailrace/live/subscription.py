"""A subscription: what wakes one reader. No task, no timer and no buffer of its own."""

from __future__ import annotations

import asyncio
from typing import Literal

__all__ = ["Closing", "Subscription"]

# The reader left; the server leaves; the token has expired; the session is not the reader's any more.
Closing = Literal["gone", "draining", "token_expired", "revoked"]


class Subscription:
    """A reader's place to wait for new frames, a due comment, or the end of its stream."""

    __slots__ = ("_waiter", "_woken", "closing", "due", "sent")

    def __init__(self) -> None:
        self._waiter: asyncio.Future[None] | None = None
        self._woken = False
        self.sent = False  # something was sent since the last keep-alive tick
        self.due = False  # a keep-alive comment should be sent
        self.closing: Closing | None = None  # why the stream ends before its time

    def wake(self) -> None:
        """Let `wait` return; remembered when nobody waits."""
        self._woken = True
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def wait(self) -> None:
        """Return after the next `wake`, or at once when one came since the last `wait`."""
        if not self._woken:
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        self._woken = False

    def close(self, reason: Closing) -> None:
        """End the stream as soon as its reader looks; the first reason counts."""
        self.closing = self.closing or reason
        self.wake()

    def tick(self) -> None:
        """Make a comment due if nothing was sent since the last tick."""
        if self.sent:
            self.sent = False
        else:
            self.due = True
            self.wake()
