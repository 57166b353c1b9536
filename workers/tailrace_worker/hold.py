"""The hold on a run: hears when it shall end, and ends the agent's work."""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from pymongo.errors import PyMongoError
from redis.asyncio import Redis

from tailrace.jobs import cancel_channel
from tailrace.leases import Leases
from tailrace.metrics import LEASES_LOST
from tailrace.mongo import Database, end_task, is_passing
from tailrace.runs import Run
from tailrace_worker.redis_client import REDIS_AWAY
from tailrace_worker.report import report

__all__ = ["HAND_OVER", "Hold", "held"]

log = logging.getLogger(__name__)

# The worker's word to the process that performs a run: leave it to another worker. Not SIGTERM, which whoever
# stops a service may send to all its processes.
HAND_OVER = signal.SIGUSR1

_LISTEN_AFTER_SECONDS = 0.05  # the agent begins first; what is said meanwhile is seen then
_LISTEN_AGAIN_SECONDS = 1.0


class Hold:
    """What became known about the run, and the agent's task that must know. Lives in that task's loop."""

    def __init__(self, leases: Leases, run: Run) -> None:
        self._leases = leases
        self._run = run
        self._agent = asyncio.current_task()
        self.lost = False  # another attempt has it, or it has ended, or it is handed over
        self.cancelled = False  # somebody asked for its end
        self.began: float | None = None  # time.monotonic(), while the agent is at work and may be cancelled
        self._told = False
        self.told_at: float | None = None  # time.monotonic() when somebody's wish for its end was first heard

    async def look(self) -> None:
        """Renew the lease, and see what has become of the run."""
        try:
            found = await self._leases.renew(self._run)
        except PyMongoError as error:
            if not is_passing(error):
                raise
            return  # the lease may run out meanwhile; then the fence decides
        self.hear(found)

    def hear(self, found: Run | None) -> None:
        """Take what a renewal of the lease returned."""
        if found is None:
            if not self.lost:
                LEASES_LOST.add()
            self.lost = True
        report()
        if self.lost or (found is not None and found.cancel_requested):
            self.end()

    def hand_over(self) -> None:
        """Stop writing, without an end: another worker begins the run again."""
        if not self._told:
            log.info("the worker must leave", extra={"action": "hand over", "run_id": self._run.run_id})
            self.lost = True
            self.end()

    def end(self) -> None:
        """Cancel the agent, once: a second cancellation would hit the writing of its end."""
        self.cancelled = not self.lost
        self.told_at = self.told_at or time.monotonic()
        if self.began is not None and not self._told and self._agent is not None:
            self._told = True
            self._agent.cancel()

    def arm(self) -> None:
        """The agent begins: from now on it may be cancelled, at once if the word came before."""
        self.began = time.monotonic()
        if self.lost or self.cancelled:
            self.end()

    def disarm(self) -> None:
        """The agent has come to its end, which must be written whatever comes now."""
        self.began = None


@asynccontextmanager
async def held(redis: Redis, database: Database, run: Run) -> AsyncIterator[Hold]:
    """The hold on `run` while the body, in the task to be cancelled, performs it."""
    hold = Hold(Leases(database), run)
    listening = asyncio.create_task(_listen(redis, hold, run.run_id), name="cancel")
    try:
        with _heard(hold):
            yield hold
    finally:
        await end_task(listening)


@contextmanager
def _heard(hold: Hold) -> Iterator[None]:
    """Hand the run over at the worker's word. Only a process's main thread can hear it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(HAND_OVER, hold.hand_over)
    try:
        yield
    finally:
        loop.remove_signal_handler(HAND_OVER)


async def _listen(redis: Redis, hold: Hold, run_id: str) -> None:
    """Hear the word at once. Without Redis the beat sees the flag, up to its two seconds later."""
    await asyncio.sleep(_LISTEN_AFTER_SECONDS)
    while True:
        with suppress(*REDIS_AWAY, PyMongoError):
            await _hear(redis, hold, run_id)
        await asyncio.sleep(_LISTEN_AGAIN_SECONDS)


async def _hear(redis: Redis, hold: Hold, run_id: str) -> None:
    async with redis.pubsub(ignore_subscribe_messages=False) as channel:
        await channel.subscribe(cancel_channel(run_id))
        async for message in channel.listen():
            if message["type"] == "subscribe":
                await hold.look()  # the word may have been said before anybody listened
            elif message["type"] == "message":
                hold.end()
