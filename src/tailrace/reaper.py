"""The reaper: in each API process, looks for runs whose lease has run out, or that nobody reads any more."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from contextlib import asynccontextmanager
from functools import partial

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from tailrace.jobs import Jobs
from tailrace.leases import Leases
from tailrace.mongo import Database, end_task, is_passing
from tailrace.presence import Presence
from tailrace.recovery import Recovery
from tailrace.runs import Runs
from tailrace.settings import Settings

__all__ = ["reaping"]

log = logging.getLogger(__name__)

LOOK_SECONDS = 1.0  # about; a lease runs out by the database's clock, so a look costs one indexed query
AT_ONCE = 50  # runs a look


@asynccontextmanager
async def reaping(
    settings: Settings, database: Database, jobs: Jobs, *, readers: Callable[[], Collection[str]]
) -> AsyncIterator[None]:
    """Look for lost runs while the body runs. No event waits for this: it is for what died, or left.

    `readers` gives the sessions that have a reader in this process.
    """
    recovery, presence = Recovery(settings, database, jobs), Presence(database)
    # Apart: what recovering waits for must not make our readers look gone to the other processes.
    looks = (
        _look_again(partial(_recover, database, jobs, recovery)),
        _look_again(partial(_see, presence, recovery, readers)),
    )
    tasks = [asyncio.create_task(look, name="reaper") for look in looks]
    try:
        yield
    finally:
        for task in tasks:
            await end_task(task)


async def _recover(database: Database, jobs: Jobs, recovery: Recovery) -> None:
    leases = Leases(database)
    # Those first that need no Redis to end: without it, a queued one ends this look.
    for run in sorted(await leases.run_out(limit=AT_ONCE), key=lambda run: run.state == "queued"):
        await recovery.tend(run)
    for session_id in await Runs(database).stalled(limit=AT_ONCE):
        await recovery.promote(session_id)
    for run in await leases.deaf(limit=AT_ONCE):
        await jobs.stop(run)


async def _see(presence: Presence, recovery: Recovery, readers: Callable[[], Collection[str]]) -> None:
    for run in await presence.look(readers()):
        await recovery.cancel(run.session_id, run.run_id)


async def _look_again(look: Callable[[], Awaitable[None]]) -> None:
    while True:
        # Not all processes at the same moment; whoever is first does it.
        await asyncio.sleep(LOOK_SECONDS * random.uniform(0.7, 1.3))
        try:
            await look()
        except Exception as error:
            # Whatever it is: a process that looks no more would recover nothing, and nobody would know.
            if isinstance(error, RedisError | OSError) or (
                isinstance(error, PyMongoError) and is_passing(error)
            ):
                log.warning("The reaper waits", extra={"action": "reap", "error": str(error)[:200]})
            else:
                log.exception("The reaper failed", extra={"action": "reap"})
