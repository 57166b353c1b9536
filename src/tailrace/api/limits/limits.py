"""The limits as one object, made from the settings; a limit of 0 is none."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from typing import Self

from tailrace.api.limits.rate import Rate
from tailrace.api.limits.runslots import RunSlots
from tailrace.api.limits.store import Store
from tailrace.api.limits.streams import Streams
from tailrace.mongo import Database
from tailrace.runs import Run
from tailrace.settings import Settings

__all__ = ["Limits"]


class Limits:
    """What each user may have at once and in a minute, over all API processes. Use it within `kept`."""

    def __init__(self, settings: Settings, database: Database) -> None:
        self._store = store = Store(settings)
        per_minute, runs, streams = (
            settings.max_runs_per_minute,
            settings.max_concurrent_runs,
            settings.max_concurrent_streams,
        )
        self._rate = Rate(store, per_minute) if per_minute else None
        self._slots = RunSlots(database, runs) if runs else None
        self._streams = Streams(store, streams) if streams else None

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[Self]:
        """Keep the leases of this process while the body runs."""
        try:
            if self._streams is None:
                yield self
            else:
                async with self._streams.kept():
                    yield self
        finally:
            await self._store.aclose()

    async def stream(self, user: str) -> ExitStack:
        """Count a stream of `user` until what is returned is closed. Raises `LimitReached`."""
        return ExitStack() if self._streams is None else await self._streams.open(user)

    async def count_run(self, user: str) -> None:
        """Count a run that `user` asks for. Raises `LimitReached`, and counts nothing then."""
        if self._rate is not None:
            await self._rate.count(user)

    async def take_slot(self, run: Run) -> None:
        """Take a slot for `run` among its user's unfinished runs. Raises `LimitReached`."""
        if self._slots is not None:
            await self._slots.take(run)

    async def give_back_slot(self, run: Run) -> None:
        """Free the slot of a run that was not stored after all."""
        if self._slots is not None:
            await self._slots.give_back(run)
