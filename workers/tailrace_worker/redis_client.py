"""Redis in a run's process: what hears a cancel, and what shows the run's progress, ask it by one client."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from redis.asyncio import Redis
from redis.exceptions import RedisError

from tailrace.settings import Settings

__all__ = ["REDIS_AWAY", "redis_client"]

# What redis-py raises while Redis is away. The last one is uvloop's word for a connection that was reset.
REDIS_AWAY = (RedisError, OSError, TimeoutError, RuntimeError)


@asynccontextmanager
async def redis_client(settings: Settings) -> AsyncIterator[Redis]:
    """A client that connects at its first command, and is closed whatever became of its connections.

    It waits for an answer for ever: whoever asks bounds the time.
    """
    client = Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=2,
        driver_info=None,  # as in `tailrace.jobs.connect_redis`
    )
    try:
        yield client
    finally:
        with suppress(*REDIS_AWAY):
            await client.aclose()
