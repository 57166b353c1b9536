"""The RQ worker: forks a horse for each run, and finishes the run of a horse that was killed."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import importlib
import logging
import os
import signal
import sys
from contextlib import closing
from typing import Any

from redis.exceptions import RedisError
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer

from tailrace.jobs import Jobs, connect_redis
from tailrace.mongo import connect
from tailrace.recovery import Recovery
from tailrace.runs import Runs
from tailrace.settings import Settings
from tailrace_worker.agents import registry

__all__ = ["RunWorker", "die_with_parent", "preload", "work"]

log = logging.getLogger(__name__)

RECOVER_SECONDS = 20.0  # for a lost run's next attempt or end; then the worker takes the next job
HEARTBEAT_SECONDS = 10  # a job without a heartbeat for this long is abandoned; beats come every 2 s
_PR_SET_PDEATHSIG = 1  # from <sys/prctl.h>

# Loaded before the fork: after it, only system calls are safe.
_LIBC = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


class RunWorker(Worker):
    """RQ's worker with the short intervals that recovery needs. Made in the process that runs it."""

    max_connection_wait_time = 2.0  # seconds between tries while Redis is away; RQ's own grows to a minute

    def __init__(self, settings: Settings) -> None:
        connection = connect_redis(settings)
        super().__init__(
            [Queue(settings.queue, connection=connection, serializer=JSONSerializer)],
            connection=connection,
            serializer=JSONSerializer,
            job_monitoring_interval=2,
            maintenance_interval=3,
            worker_ttl=20,
            log_job_description=False,
        )
        self._settings = settings
        self._parent = os.getpid()

    @property
    def ended_on_request(self) -> bool:
        """Whether a signal asked the worker to stop, and not Redis made it."""
        return getattr(self, "_shutdown_requested_date", None) is not None

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """RQ's own minute would hide a dead worker for a minute."""
        return HEARTBEAT_SECONDS

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """A run needs no Redis to go on; RQ would end the worker here, and with it the run."""
        try:
            super().maintain_heartbeats(job, execution)
        except RedisError as error:
            log.warning("Redis is away while a run goes on: %s", error, extra={"action": "heartbeat"})

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """A horse must not outlive its worker: nobody would see how it ends."""
        die_with_parent(signal.SIGKILL, self._parent)
        super().main_work_horse(job, queue)

    def handle_work_horse_killed(self, job: Job, retpid: int, ret_val: int, rusage: Any) -> None:
        """Runs in the parent, for a horse that was killed: neither of RQ's callbacks does."""
        super().handle_work_horse_killed(job, retpid, ret_val, rusage)  # type: ignore[no-untyped-call]
        self._recover(job, f"the process that ran the agent {_end_of(ret_val)}.")

    def _handle_stopped_job(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Runs in the parent, for a horse that was killed on command: its run did not end when told to."""
        super()._handle_stopped_job(job, queue, execution)
        self._recover(job, "the process that ran the agent was stopped on command.")

    def _recover(self, job: Job, why: str) -> None:
        try:
            # Clients of its own, closed before the next fork: no horse inherits them.
            asyncio.run(_recovered(self._settings, job, why))
        except Exception:
            # The lease runs out soon, and an API recovers the run.
            log.exception("A lost run was not recovered", extra={"action": "recover", "job_id": job.id})


async def _recovered(settings: Settings, job: Job, why: str) -> None:
    """Bring the run on, if the attempt that died is still its last: the job says which it was."""
    session_id, run_id = job.args
    async with asyncio.timeout(RECOVER_SECONDS), connect(settings) as database:
        run = await Runs(database).get(session_id, run_id)
        if run is None or not run.active or run.attempt != job.meta["attempt"] or run.state != "running":
            return
        with closing(Jobs(settings)) as jobs:
            await Recovery(settings, database, jobs).recover(run, why=why, dead=True)


def _end_of(wait_status: int | None) -> str:
    if wait_status is not None and os.WIFSIGNALED(wait_status):
        return f"was killed by {signal.Signals(os.WTERMSIG(wait_status)).name}"
    return "ended without finishing it"


def die_with_parent(sig: signal.Signals, parent: int) -> None:
    """Ask the kernel to send `sig` to this process when its parent dies; exit if `parent` is gone already."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(sig))
    if os.getppid() != parent:
        os._exit(1)


def preload(settings: Settings) -> None:
    """Import what runs need, before forking: a horse then starts in milliseconds and shares the memory.

    An agent's module that cannot be imported is named in the log; its runs will say so too.
    """
    modules = ["tailrace_worker.job", "langchain.agents", "tzdata"]
    modules += [place.partition(":")[0] for place in registry(settings).values()]
    if settings.tracing:
        modules.append("tailrace_worker.langfuse_handler")
    if settings.model != "offline":
        provider = settings.model.partition(":")[0] if ":" in settings.model else "openai"
        modules.append(f"langchain_{provider.replace('-', '_')}")
    for module in dict.fromkeys(modules):
        try:
            importlib.import_module(module)
        except Exception as error:
            log.warning("%s cannot be imported: %s: %s", module, type(error).__name__, error)
    gc.collect()
    gc.freeze()  # else the first collection in each horse would touch, and copy, every page


def work(settings: Settings) -> int:
    """Work until told to stop; the exit status: 0 on request, 1 when Redis went away."""
    worker = RunWorker(settings)
    level = "DEBUG" if settings.log_level == "debug" else "WARNING"
    worker.work(logging_level=level)
    return 0 if worker.ended_on_request else 1
