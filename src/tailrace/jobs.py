"""The RQ jobs of runs: alone touches RQ and Redis."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from redis import Redis
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue, Worker
from rq.command import send_stop_job_command
from rq.exceptions import InvalidJobOperation, NoSuchJobError
from rq.executions import Execution, ExecutionRegistry
from rq.job import Job, JobStatus
from rq.results import Result
from rq.serializers import JSONSerializer

from tailrace.errors import EnqueueFailed
from tailrace.runs import Run
from tailrace.settings import Settings

__all__ = ["PERFORM", "Jobs", "cancel_channel", "connect_redis", "job_id", "job_ids"]

T = TypeVar("T")

THREADS = 4  # of its own: a Redis that hangs must not take those that others wait for
ANSWER_SECONDS = 2.0  # for one command
AWAY_SECONDS = 0.2  # after none came: then those who wait for a thread are told at once, and wait no longer

# Named by string, so that the API process imports no agent code.
PERFORM = "tailrace_worker.job.perform"

# How long RQ keeps a job's hash after it ended, for rq-dashboard. The run's own record is in MongoDB.
_RESULT_TTL = 86_400
_FAILURE_TTL = 7 * 86_400

# RQ kills a horse this long after the run's own timeout should have ended it in good order.
_GRACE_SECONDS = 30


def connect_redis(settings: Settings) -> Redis:
    """A Redis client with bounded waits; it connects at its first command."""
    return Redis.from_url(
        settings.redis_url,
        socket_connect_timeout=2,
        socket_timeout=None,  # RQ's worker blocks in BLPOP for as long as it likes
        health_check_interval=15,
        driver_info=None,  # else each connection reads redis-py's metadata for its version: 2 ms in a run
    )


def job_id(run: Run) -> str:
    """The RQ job of a run's attempt: names session and run, so that a person finds both in rq-dashboard."""
    return f"{run.session_id}_{run.run_id}_{run.attempt}"


def job_ids(run: Run) -> list[str]:
    """The jobs of all attempts that `run` has had."""
    return [f"{run.session_id}_{run.run_id}_{attempt}" for attempt in range(1, run.attempt + 1)]


def cancel_channel(run_id: str) -> str:
    """The Redis channel on which the process that performs the run hears that it shall end."""
    return f"tailrace:cancel:{run_id}"


class Jobs:
    """The queue of runs, seen from the API."""

    def __init__(self, settings: Settings) -> None:
        self._redis = Redis.from_url(
            settings.redis_url, socket_connect_timeout=2, socket_timeout=ANSWER_SECONDS
        )
        self._queue = Queue(settings.queue, connection=self._redis, serializer=JSONSerializer)
        self._timeout = int(settings.run_timeout_seconds) + _GRACE_SECONDS
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="jobs")
        self._away_until = 0.0  # time.monotonic()

    async def _ask(self, question: Callable[[], T]) -> T:
        """The answer. Raises `RedisError` or `OSError` when there is none in time."""
        return await asyncio.get_running_loop().run_in_executor(self._pool, self._answered, question)

    def _answered(self, question: Callable[[], T]) -> T:
        if time.monotonic() < self._away_until:
            raise RedisTimeoutError("Redis did not answer a moment ago")
        try:
            return question()
        except (RedisConnectionError, RedisTimeoutError, OSError):
            self._away_until = time.monotonic() + AWAY_SECONDS
            raise

    async def enqueue(self, run: Run) -> None:
        """Hand `run` to a worker.

        Raises `EnqueueFailed` when Redis does not answer.
        """
        try:
            await self._ask(partial(self._enqueue, run))
        except (RedisError, OSError) as error:
            raise EnqueueFailed(f"Redis did not take the job of run {run.run_id}: {error}") from error

    def _enqueue(self, run: Run) -> None:
        self._queue.enqueue_call(
            PERFORM,
            args=(run.session_id, run.run_id),
            job_id=job_id(run),
            timeout=self._timeout,
            result_ttl=_RESULT_TTL,
            failure_ttl=_FAILURE_TTL,
            description=f"run {run.run_id} of session {run.session_id}, agent {run.agent}",
            at_front=run.attempt > 1,  # it has waited for its turn once, and its readers saw it begin
            meta={
                "session_id": run.session_id,
                "run_id": run.run_id,
                "attempt": run.attempt,
                "state": run.state,
            },
        )

    async def waits(self, run: Run) -> bool:
        """Whether the job of a queued run is where a worker will find it, or has just found it.

        Raises `RedisError` or `OSError` when Redis does not answer.
        """
        return await self._ask(partial(self._waits, run))

    def _waits(self, run: Run) -> bool:
        try:
            job = Job.fetch(job_id(run), connection=self._redis, serializer=JSONSerializer)
        except NoSuchJobError:
            return False
        if job.get_status(refresh=False) == JobStatus.STARTED:
            return True
        return self._queue.get_job_position(job) is not None

    async def served(self) -> bool:
        """Whether any worker serves the queue. Raises like `waits`."""
        return await self._ask(partial(Worker.count, queue=self._queue)) > 0

    async def queue_size(self) -> tuple[int, int]:
        """The jobs that wait, and the workers that serve the queue. Raises like `waits`."""
        return await self._ask(lambda: (self._queue.count, Worker.count(queue=self._queue)))

    async def cancel(self, run: Run) -> None:
        """Tell the process that performs `run` to end it, if it listens. Raises like `waits`."""
        await self._ask(partial(self._redis.publish, cancel_channel(run.run_id), b"cancel"))

    async def stop(self, run: Run) -> None:
        """Have a run that did not end when told killed by its worker. Raises like `waits`."""
        with contextlib.suppress(NoSuchJobError, InvalidJobOperation):  # it is not running any more
            await self._ask(partial(send_stop_job_command, self._redis, job_id(run), JSONSerializer))

    async def forget(self, named: Sequence[str]) -> None:
        """Delete all that Redis holds of these jobs, wherever they are, if they are. Raises like `waits`."""
        for each in named:
            await self._ask(partial(self._forget, each))

    def _forget(self, job_id: str) -> None:
        # Key by key: RQ's own `delete` looks where the job's hash says it is, and a worker that still beats
        # makes that hash again without saying.
        queue, started = self._queue, self._queue.started_job_registry
        running = [key.decode() for key, _ in self._redis.zscan_iter(started.key, match=f"{job_id}:*")]
        executions = [Execution(key.rpartition(":")[2], job_id, self._redis).key for key in running]
        ended = (queue.finished_job_registry, queue.failed_job_registry, queue.canceled_job_registry)
        with self._redis.pipeline() as pipeline:
            queue.remove(job_id, pipeline=pipeline)
            for registry in ended:
                registry.remove(job_id, pipeline=pipeline)
            if running:
                pipeline.zrem(started.key, *running)
            pipeline.delete(
                Job.key_for(job_id),
                Job.dependents_key_for(job_id),
                Result.get_key(job_id),  # type: ignore[no-untyped-call]
                ExecutionRegistry(job_id, self._redis).key,
                *executions,
            )
            pipeline.execute()

    async def ping(self) -> None:
        """Return if Redis answers; raise `RedisError` or `OSError` otherwise."""
        await self._ask(self._redis.ping)

    def close(self) -> None:
        """Close the connections; no thread is left, as who forks afterwards must know."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._redis.close()  # which ends what hangs
        self._pool.shutdown()
