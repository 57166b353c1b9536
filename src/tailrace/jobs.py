"""The RQ jobs of runs: alone touches RQ and Redis."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence

from redis import Redis
from redis.exceptions import RedisError
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
        self._redis = Redis.from_url(settings.redis_url, socket_connect_timeout=2, socket_timeout=5)
        self._queue = Queue(settings.queue, connection=self._redis, serializer=JSONSerializer)
        self._timeout = int(settings.run_timeout_seconds) + _GRACE_SECONDS

    async def enqueue(self, run: Run) -> None:
        """Hand `run` to a worker.

        Raises `EnqueueFailed` when Redis does not answer.
        """
        try:
            await asyncio.to_thread(self._enqueue, run)
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
            meta={"session_id": run.session_id, "run_id": run.run_id, "attempt": run.attempt},
        )

    async def waits(self, run: Run) -> bool:
        """Whether the job of a queued run is where a worker will find it, or has just found it.

        Raises `RedisError` or `OSError` when Redis does not answer.
        """
        return await asyncio.to_thread(self._waits, run)

    def _waits(self, run: Run) -> bool:
        try:
            job = Job.fetch(job_id(run), connection=self._redis, serializer=JSONSerializer)
        except NoSuchJobError:
            return False
        if job.get_status(refresh=False) == JobStatus.STARTED:
            return True
        return job.id in self._queue.get_job_ids()

    async def served(self) -> bool:
        """Whether any worker serves the queue. Raises like `waits`."""
        return await asyncio.to_thread(Worker.count, queue=self._queue) > 0

    async def queue_size(self) -> tuple[int, int]:
        """The jobs that wait, and the workers that serve the queue. Raises like `waits`."""
        return await asyncio.to_thread(lambda: (self._queue.count, Worker.count(queue=self._queue)))

    async def cancel(self, run: Run) -> None:
        """Tell the process that performs `run` to end it, if it listens. Raises like `waits`."""
        await asyncio.to_thread(self._redis.publish, cancel_channel(run.run_id), b"cancel")

    async def stop(self, run: Run) -> None:
        """Have a run that did not end when told killed by its worker. Raises like `waits`."""
        with contextlib.suppress(NoSuchJobError, InvalidJobOperation):  # it is not running any more
            await asyncio.to_thread(send_stop_job_command, self._redis, job_id(run), JSONSerializer)

    async def forget(self, named: Sequence[str]) -> None:
        """Delete all that Redis holds of these jobs, wherever they are, if they are. Raises like `waits`."""
        for each in named:
            await asyncio.to_thread(self._forget, each)

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
        await asyncio.to_thread(self._redis.ping)

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
