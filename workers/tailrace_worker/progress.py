"""A run's progress, in the meta of its RQ job: for whoever looks at rq-dashboard, and for nobody else.

Written when the state changes and at each beat at which there is something new, never for an event. Redis may
be away or hang: the run does not notice.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis
from rq.job import Job

from tailrace.errors import Fenced
from tailrace.events import Event
from tailrace.jobs import job_id
from tailrace.leases import BEAT_SECONDS
from tailrace.mongo import end_task
from tailrace.runs import Run
from tailrace_worker.redis_client import REDIS_AWAY

__all__ = ["Progress", "shown"]

_FIRST_SECONDS = 0.05  # the agent begins first
_ANSWER_SECONDS = 1.0
_LAST_SECONDS = 0.5  # for the last word; the run has ended, and its process should

# A session that is erased loses its jobs: nothing of them may be made again.
_TELL = "if redis.call('exists', KEYS[1]) == 1 then redis.call('hset', KEYS[1], 'meta', ARGV[1]) end"


class Progress:
    """How far the run has come."""

    def __init__(self, run: Run, then: Callable[[Sequence[Event]], None]) -> None:
        self.run = run
        self._then = then
        self.state = "running"  # then the status of its `finish`, or `taken away`
        self._events = 0

    def stored(self, events: Sequence[Event]) -> None:
        """Count what the agent gave and a majority has now."""
        self._events += len(events)
        self._then(events)

    def meta(self) -> dict[str, Any]:
        """What is shown, without the time."""
        run = self.run
        names = {"session_id": run.session_id, "run_id": run.run_id, "attempt": run.attempt}
        return {**names, "state": self.state, "events": self._events, "worker": run.worker}


@asynccontextmanager
async def shown(
    redis: Redis, run: Run, *, then: Callable[[Sequence[Event]], None] = lambda _: None
) -> AsyncIterator[Progress]:
    """Show the progress of `run`, as the body tells it, while the body runs, and how it ended.

    `then` is told what the progress is.
    """
    progress = Progress(run, then)
    telling = asyncio.create_task(_tell_changes(redis, progress), name="progress")
    try:
        yield progress
    except Fenced:
        progress.state = "taken away"
        raise
    finally:
        await end_task(telling)
        with suppress(*REDIS_AWAY):
            await _tell(redis, progress, within=_LAST_SECONDS)


async def _tell_changes(redis: Redis, progress: Progress) -> None:
    told = None
    await asyncio.sleep(_FIRST_SECONDS)
    while True:
        if (now := progress.meta()) != told:
            with suppress(*REDIS_AWAY):
                await _tell(redis, progress, within=_ANSWER_SECONDS)
                told = now
        await asyncio.sleep(BEAT_SECONDS)


async def _tell(redis: Redis, progress: Progress, *, within: float) -> None:
    meta = {**progress.meta(), "as_of": datetime.now(UTC).isoformat(timespec="seconds")}
    async with asyncio.timeout(within):
        # Typed for its blocking client too, which answers at once.
        told: Any = redis.eval(_TELL, 1, Job.key_for(job_id(progress.run)), msgspec.json.encode(meta))
        await told
