"""Slots: how many may do something costly at once, and how many of those may be one user's."""

from __future__ import annotations

import asyncio
from contextlib import nullcontext
from types import TracebackType
from weakref import WeakValueDictionary

__all__ = ["Slots", "Turn"]


class Slots:
    """At most `each` at once for a user, and `total` for all (None: any number), first come first served.

    A user's crowd waits before its own share, and so never stands in the way of somebody else.
    """

    def __init__(self, *, each: int, total: int | None = None) -> None:
        self._each = each
        self._all = nullcontext() if total is None else asyncio.Semaphore(total)
        self._turns: WeakValueDictionary[str, Turn] = WeakValueDictionary()  # forgotten with its last holder

    def of(self, user: str) -> Turn:
        """What `user` enters, as often as he likes."""
        turn = self._turns.get(user)
        if turn is None:
            turn = self._turns[user] = Turn(asyncio.Semaphore(self._each), self._all)
        return turn


class Turn:
    """A user's slots, as one asynchronous context manager that can be entered by many at once."""

    def __init__(self, own: asyncio.Semaphore, shared: asyncio.Semaphore | nullcontext[None]) -> None:
        self._own = own
        self._shared = shared

    async def __aenter__(self) -> None:
        await self._own.acquire()
        try:
            await self._shared.__aenter__()
        except BaseException:
            self._own.release()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._shared.__aexit__(kind, error, trace)
        self._own.release()
