"""The figures of an API process: what it counted, and what is true of it and of the queue at the moment."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from tailrace import metrics
from tailrace.archive.passes import Passes
from tailrace.exposition import Exposition
from tailrace.jobs import Jobs
from tailrace.live import Live
from tailrace.metrics import Gauge
from tailrace.runs import Runs

__all__ = ["Figures"]

LOOK_SECONDS = 5.0  # between looks at MongoDB and Redis, however often somebody scrapes
ANSWER_SECONDS = 1.0  # for each; without an answer its figures are left out


class Figures:
    """The metrics of an API process."""

    def __init__(self, live: Live, runs: Runs, jobs: Jobs, passes: Passes | None) -> None:
        self._live = live
        self._runs = runs
        self._jobs = jobs
        self._passes = passes  # None without an archive
        self._looked_at = float("-inf")
        self._outside: dict[Gauge, dict[str, float]] = {}
        self._exposition = Exposition(metrics.API, self._gauges, process=True)

    async def shown(self, accept: str) -> tuple[bytes, str]:
        """The body for a request with this `Accept` header, and its content type."""
        if time.monotonic() - self._looked_at > LOOK_SECONDS:
            self._looked_at = time.monotonic()
            await self._look()
        return self._exposition.shown(accept)

    async def _look(self) -> None:
        """What is the same for every process of the deployment."""
        found = await asyncio.gather(self._ask_mongodb(), self._ask_redis())
        self._outside = {gauge: values for part in found for gauge, values in part.items()}

    async def _ask_mongodb(self) -> dict[Gauge, dict[str, float]]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                counts = await self._runs.unfinished()
                age = {metrics.ARCHIVE_AGE: {"": await self._passes.age()}} if self._passes else {}
        except (PyMongoError, OSError, RuntimeError):  # the driver's lock makes the last of a timeout
            return {}
        return {metrics.RUNS: {state: float(count) for state, count in counts.items()}, **age}

    async def _ask_redis(self) -> dict[Gauge, dict[str, float]]:
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                jobs, workers = await self._jobs.queue_size()
        except (RedisError, OSError):
            return {}
        return {metrics.QUEUE_JOBS: {"": jobs}, metrics.QUEUE_WORKERS: {"": workers}}

    def _gauges(self) -> Iterator[tuple[Gauge, dict[str, float]]]:
        now = self._live.figures()
        yield metrics.STREAMS, {state: float(count) for state, count in now.readers.items()}
        yield metrics.SESSIONS, {"": now.sessions}
        yield metrics.BUFFERED_BYTES, {"": now.buffered_bytes}
        yield metrics.TAIL_UP, {"": float(self._live.status() is None)}
        if now.tail_silence_seconds is not None and now.tail_lag_seconds is not None:
            yield metrics.TAIL_SILENCE, {"": now.tail_silence_seconds}
            yield metrics.TAIL_LAG, {"": now.tail_lag_seconds}
        yield from self._outside.items()
