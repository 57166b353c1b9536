"""The Redis behind the limits: asked for a bounded time, and done without while it is away."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tailrace.settings import Settings

__all__ = ["Store"]

T = TypeVar("T")
log = logging.getLogger(__name__)

ANSWER_SECONDS = 0.5  # the longest that a request waits for a limit
SLICES = 5  # of that time
AWAY_SECONDS = 1.0  # between looks at a Redis that is away; whoever does not look goes on without it
CONNECTIONS = 16  # a question takes far less than a millisecond; more would only queue in Redis


class Store:
    """Asks Redis, and says None where it has no answer: a limit that cannot be looked up does not hold.

    A run that is durable in MongoDB is worth more than a limit, and a stream needs no Redis at all.
    """

    def __init__(self, settings: Settings) -> None:
        self.pool: BlockingConnectionPool = BlockingConnectionPool.from_url(
            settings.redis_url,
            max_connections=CONNECTIONS,
            timeout=ANSWER_SECONDS,
            retry=Retry(NoBackoff(), 1),  # once, for a connection that Redis closed while it was idle
        )
        self.redis: Redis = Redis(connection_pool=self.pool)
        # The database is what tells deployments apart. The braces keep its keys together in a Redis cluster.
        self.prefix = f"tailrace:{{{settings.mongodb_db}}}:limits"
        self._away = False
        self._look_again = 0.0  # time.monotonic()

    @property
    def away(self) -> bool:
        """Whether Redis did not answer when it was last asked."""
        return self._away

    async def ask(self, question: Callable[[], Awaitable[T]]) -> T | None:
        """The answer, or None when Redis is away; within `ANSWER_SECONDS`, and mostly at once while it is."""
        if self._away:
            if time.monotonic() < self._look_again:
                return None
            self._look_again = time.monotonic() + AWAY_SECONDS
        try:
            answer = await _in_time(question())
        except (RedisError, OSError, TimeoutError, RuntimeError) as error:
            # The last one: a connection that was reset is closed by redis-py under uvloop, which says so.
            self._lost(error)
            return None
        if self._away:
            self._away = False
            log.info("Redis is back: the limits hold again", extra={"action": "limits"})
        return answer

    async def aclose(self) -> None:
        """Close the connections."""
        await self.redis.aclose()
        await self.pool.aclose()

    def _lost(self, error: Exception) -> None:
        self._look_again = time.monotonic() + AWAY_SECONDS
        if not self._away:
            self._away = True
            why = str(error)[:200] or type(error).__name__
            log.warning(
                "Redis does not answer: runs and streams go on without limits",
                extra={"action": "limits", "error": why},
            )


async def _in_time(question: Awaitable[T]) -> T:
    """The answer. Raises `TimeoutError` after `ANSWER_SECONDS`.

    In slices: when this process itself stood still for a while, that takes one, and not Redis's time.
    """
    asking = asyncio.ensure_future(question)
    try:
        for _ in range(SLICES):
            await asyncio.wait([asking], timeout=ANSWER_SECONDS / SLICES)
            if asking.done():
                return asking.result()
        raise TimeoutError
    finally:
        if asking.cancel():
            asking.add_done_callback(lambda ended: ended.cancelled() or ended.exception())  # nobody asks
