"""The hold on a run: renews its lease while the agent works, and hears when it shall end."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

from pymongo.errors import PyMongoError
from redis import asyncio as redis
from redis.exceptions import RedisError

from tailrace.jobs import cancel_channel
from tailrace.leases import BEAT_SECONDS, Leases
from tailrace.mongo import Database, end_task, is_passing
from tailrace.runs import Run
from tailrace.settings import Settings

__all__ = ["Hold", "held"]

log = logging.getLogger(__name__)

_LISTEN_AGAIN_SECONDS = 1.0


class Hold:
    """What the beat and the channel found out about the run, and the agent's task that must know."""

    def __init__(self, leases: Leases, run: Run) -> None:
        self._leases = leases
        self._run = run
        self._agent = asyncio.current_task()
        self.lost = False  # another attempt has it, or it has ended
        self.cancelled = False  # somebody asked for its end
        self._armed = False  # the agent is at work, and may be cancelled
        self._told = False

    async def look(self) -> None:
        """Renew the lease, and see what has become of the run."""
        try:
            found = await self._leases.renew(self._run)
        except PyMongoError as error:
            if not is_passing(error):
                raise
            return  # the lease may run out meanwhile; then the fence decides
        self.lost = found is None
        if self.lost or (found is not None and found.cancel_requested):
            self.end()

    def end(self) -> None:
        """Cancel the agent, once: a second cancellation would hit the writing of its end."""
        self.cancelled = not self.lost
        if self._armed and not self._told and self._agent is not None:
            self._told = True
            self._agent.cancel()

    def arm(self) -> None:
        """The agent begins: from now on it may be cancelled, at once if the word came before."""
        self._armed = True
        if self.lost or self.cancelled:
            self.end()

    def disarm(self) -> None:
        """The agent has come to its end, which must be written whatever comes now."""
        self._armed = False


@asynccontextmanager
async def held(settings: Settings, database: Database, run: Run) -> AsyncIterator[Hold]:
    """Keep the hold on `run` while the body, in the task to be cancelled, performs it."""
    hold = Hold(Leases(database), run)
    tasks = [
        asyncio.create_task(_beat(hold), name="lease"),
        asyncio.create_task(_listen(settings, hold, run.run_id), name="cancel"),
    ]
    try:
        yield hold
    finally:
        for task in tasks:
            await end_task(task)


async def _beat(hold: Hold) -> None:
    while True:
        await asyncio.sleep(BEAT_SECONDS)
        await hold.look()


async def _listen(settings: Settings, hold: Hold, run_id: str) -> None:
    """Hear the word at once. Without Redis the beat sees the flag, up to its two seconds later."""
    while True:
        with suppress(RedisError, OSError):
            async with redis.Redis.from_url(settings.redis_url, socket_connect_timeout=2) as client:
                await _hear(client, hold, run_id)
        await asyncio.sleep(_LISTEN_AGAIN_SECONDS)


async def _hear(client: Any, hold: Hold, run_id: str) -> None:
    async with client.pubsub(ignore_subscribe_messages=False) as channel:
        await channel.subscribe(cancel_channel(run_id))
        async for message in channel.listen():
            if message["type"] == "subscribe":
                await hold.look()  # the word may have been said before anybody listened
            elif message["type"] == "message":
                hold.end()
