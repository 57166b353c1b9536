"""The reaper: one task in each API process that looks for runs whose lease has run out."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Collection
from contextlib import asynccontextmanager

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
    task = asyncio.create_task(_reap(settings, database, jobs, readers), name="reaper")
    try:
        yield
    finally:
        await end_task(task)


async def _reap(
    settings: Settings, database: Database, jobs: Jobs, readers: Callable[[], Collection[str]]
) -> None:
    leases, presence, recovery = Leases(database), Presence(database), Recovery(settings, database, jobs)
    while True:
        # Not all processes at the same moment; whoever is first does it.
        await asyncio.sleep(LOOK_SECONDS * random.uniform(0.7, 1.3))
        try:
            for run in await leases.run_out(limit=AT_ONCE):
                await recovery.tend(run)
            for run in await leases.deaf(limit=AT_ONCE):
                await jobs.stop(run)
            for session_id in await Runs(database).stalled(limit=AT_ONCE):
                await recovery.promote(session_id)
            for run in await presence.look(readers()):
                await recovery.cancel(run.session_id)
        except (PyMongoError, RedisError, OSError) as error:
            if isinstance(error, PyMongoError) and not is_passing(error):
                log.exception("The reaper failed", extra={"action": "reap"})
            else:
                log.warning("The reaper waits", extra={"action": "reap", "error": str(error)[:200]})
