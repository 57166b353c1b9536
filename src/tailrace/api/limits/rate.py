"""How many runs a user may start in a minute."""

from __future__ import annotations

import math
import time
from typing import Any

from limits import RateLimitItemPerMinute
from limits.aio.storage import RedisStorage
from limits.aio.strategies import MovingWindowRateLimiter

from tailrace.api.limits.store import Store
from tailrace.errors import LimitReached
from tailrace.live.slots import Slots

__all__ = ["Rate"]

WINDOW_SECONDS = 60


class Rate:
    """A moving window a user, in Redis: of any 60 s, no more than so many runs. By the library `limits`.

    Its entries carry the clock of the API process that made them, so the window is as exact as those agree.
    """

    def __init__(self, store: Store, per_minute: int) -> None:
        self._store = store
        self._item = RateLimitItemPerMinute(per_minute)
        self._turns = Slots(each=1)  # a crowd waits here, where it costs no other user Redis's time
        pool: Any = store.pool  # whose type the library leaves out of its signature
        storage = RedisStorage(
            "async+redis://",  # says only which kind it is
            implementation="redispy",
            key_prefix=store.prefix,
            connection_pool=pool,
        )
        self._window = MovingWindowRateLimiter(storage)

    async def count(self, user: str) -> None:
        """Count a run of `user`. Raises `LimitReached` when the minute is full; that is not counted."""
        async with self._turns.of(user):
            counted = await self._store.ask(lambda: self._window.hit(self._item, user))
        if counted is not False:
            return
        window = await self._store.ask(lambda: self._window.get_window_stats(self._item, user))
        again = WINDOW_SECONDS if window is None else math.ceil(window.reset_time - time.time())
        raise LimitReached(
            "runs-per-minute",
            f"At most {self._item.amount} runs may be started in a minute.",
            allowed=self._item.amount,
            window=WINDOW_SECONDS,
            retry_after=min(max(again, 1), WINDOW_SECONDS),
        )
