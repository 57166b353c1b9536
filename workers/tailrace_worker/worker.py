"""The RQ worker: forks a horse for each run, and finishes the run of a horse that was killed."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import sys
import time
from contextlib import closing, suppress
from datetime import timedelta
from typing import Any, NoReturn

import msgspec
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from rq import Queue, Worker
from rq.executions import Execution
from rq.job import Job
from rq.serializers import JSONSerializer
from rq.utils import now

from tailrace.jobs import Jobs, connect_redis
from tailrace.metrics import QUEUE_SECONDS, settle
from tailrace.mongo import connect
from tailrace.recovery import Recovery
from tailrace.runs import Runs
from tailrace.settings import Settings
from tailrace_worker.groundwork import lay
from tailrace_worker.hold import HAND_OVER
from tailrace_worker.leaving import Leaving
from tailrace_worker.report import report
from tailrace_worker.spare import Order, Spares
from tailrace_worker.tracing import tell_lost

__all__ = ["RunWorker", "die_with_parent", "work"]

log = logging.getLogger(__name__)

RECOVER_SECONDS = 20.0  # for a lost run's next attempt or end; then the worker takes the next job
_HAND_OVER_SECONDS = 4.0  # likewise for a run that is handed over, when the worker must be gone soon
_REDIS_AGAIN_SECONDS = 0.5  # between tries to note a job's end; a worker without Redis has nothing else to do
_ECHO = timedelta(seconds=1)  # a terminal, and whoever passes signals on, may send the same one twice
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
        self._pid = os.getpid()
        self._leaving = Leaving(handover_seconds=settings.handover_seconds)
        self._horse_status: int | None = None  # as `waitpid` gives it
        self._spares = Spares(self._be_horse)
        self._forking = False
        self._missed: int | None = None  # the signal that came while it forked

    @property
    def ended_on_request(self) -> bool:
        """Whether a signal asked the worker to stop, and not Redis made it."""
        return getattr(self, "_shutdown_requested_date", None) is not None

    @property
    def _asked_long_ago(self) -> bool:
        asked = self._shutdown_requested_date
        return asked is not None and now() - asked > _ECHO

    def get_heartbeat_ttl(self, job: Job, working_time: float = 0.0) -> int:
        """RQ's own minute would hide a dead worker for a minute."""
        return HEARTBEAT_SECONDS

    def maintain_heartbeats(self, job: Job, execution: Execution) -> None:
        """A run needs no Redis to go on; RQ would end the worker here, and with it the run."""
        try:
            super().maintain_heartbeats(job, execution)
        except RedisError as error:
            log.warning("Redis is away while a run goes on: %s", error, extra={"action": "heartbeat"})

    def dequeue_job_and_maintain_ttl(
        self, timeout: int | None, max_idle_time: int | None = None
    ) -> tuple[Job, Queue] | None:
        """The next job, awaited with a spare at hand."""
        self._keep_spare()
        return super().dequeue_job_and_maintain_ttl(timeout, max_idle_time)

    def run_maintenance_tasks(self) -> None:
        """RQ calls this every few seconds while there is no job."""
        super().run_maintenance_tasks()  # type: ignore[no-untyped-call]
        self._keep_spare()

    def _keep_spare(self) -> None:
        # A wish to stop is heeded afterwards: RQ raises it in the handler, and in a fork that would be lost.
        self._forking = True
        try:
            self._spares.keep()
        finally:
            self._forking = False
        if self._missed is not None:
            self.request_stop(self._missed, None)

    def fork_work_horse(self, job: Job, queue: Queue) -> None:
        """Give the job to the spare."""
        assert self.execution is not None  # RQ has made it by now
        self._horse_pid = self._spares.give(Order(job_id=job.id, execution_id=self.execution.id))

    def _be_horse(self, pipe: int) -> NoReturn:
        """Runs in the spare: wait for the job, and perform it."""
        os.setpgrp()  # RQ kills a horse with all that it started
        die_with_parent(signal.SIGKILL, self._pid)  # else nobody would see how it ends
        settle()  # the worker's numbers are the worker's to report
        ground = lay(self._settings)
        with suppress(RedisError):  # no order comes without Redis
            self.connection.ping()
        said = ground.wait(pipe)
        os.close(pipe)
        if not said:
            os._exit(0)
        order = msgspec.json.decode(said, type=Order)
        job = Job.fetch(order.job_id, connection=self.connection, serializer=self.serializer)
        self.execution = Execution(order.execution_id, job.id, self.connection, worker_name=self.name)
        self.main_work_horse(job, self.queues[0])
        os._exit(0)

    def main_work_horse(self, job: Job, queue: Queue) -> None:
        """Runs in the horse."""
        os.environ.update(RQ_WORKER_ID=self.name, RQ_JOB_ID=job.id)  # as RQ does
        if job.enqueued_at is not None:
            QUEUE_SECONDS.observe((now() - job.enqueued_at).total_seconds())
        super().main_work_horse(job, queue)

    def setup_work_horse_signals(self) -> None:
        """Whoever stops a service may signal all its processes; a horse ends on its worker's word alone."""
        super().setup_work_horse_signals()  # type: ignore[no-untyped-call]
        signal.signal(
            signal.SIGTERM, lambda number, frame: None
        )  # not SIG_IGN: programs it starts inherit that
        signal.signal(HAND_OVER, signal.SIG_DFL)

    def perform_job(self, job: Job, queue: Queue, execution: Execution) -> bool:
        """Runs in the horse. A job that fails leaves its run without an end: the worker must see that."""
        try:
            done = super().perform_job(job, queue, execution)
        finally:
            report(last=True)
        if not done:
            raise SystemExit(1)
        return True

    def _finalize_success(self, job: Job, queue: Queue, execution: Execution, return_value: Any) -> None:
        """Runs in the horse. RQ would call a job failed whose end Redis was not there to note."""
        while True:
            try:
                super()._finalize_success(job, queue, execution, return_value)
                # Another worker may have given it up for dead meanwhile.
                queue.failed_job_registry.remove(job)
                return
            except (RedisConnectionError, RedisTimeoutError) as error:
                log.warning("Redis is away after a run: %s", error, extra={"action": "end job"})
            time.sleep(_REDIS_AGAIN_SECONDS)

    def wait_for_horse(self) -> tuple[int | None, int | None, Any]:
        """Keeps how the horse ended, which RQ forgets where it killed it itself."""
        pid, self._horse_status, usage = super().wait_for_horse()
        self._leaving.forget()
        return pid, self._horse_status, usage

    def monitor_work_horse(self, job: Job, queue: Queue, execution: Execution) -> None:
        """Wait for the horse, and bring its run on if it did not end it itself."""
        self._horse_status, began = None, time.monotonic()
        self._leaving.watch(self.horse_pid)
        try:
            super().monitor_work_horse(job, queue, execution)
        finally:
            # RQ calls nobody for a job that failed, nor while Redis is away.
            if self._horse_status or self._leaving.told:
                self._recover(job, out_of_time=time.monotonic() - began >= self._settings.run_timeout_seconds)

    def _recover(self, job: Job, *, out_of_time: bool) -> None:
        handed_over = self._leaving.told
        try:
            # Clients of its own, closed before the next fork: no horse inherits them.
            asyncio.run(
                _recovered(
                    self._settings,
                    job,
                    why=f"the process that ran the agent {_end_of(self._horse_status)}.",
                    killed=_was_killed(self._horse_status),
                    out_of_time=out_of_time,
                    handed_over=handed_over,
                )
            )
        except Exception:
            # The lease runs out soon, and an API recovers the run.
            log.exception("A lost run was not recovered", extra={"action": "recover", "job_id": job.id})
        report(last=True)

    def request_stop(self, signum: int, frame: Any) -> None:
        """Let the run finish, for as long as it may. The first SIGTERM or SIGINT comes here."""
        if os.getpid() != self._pid:
            return  # a horse that has no handlers of its own yet
        if self._forking:
            self._missed = signum
            return
        self._leaving.begin()
        super().request_stop(signum, frame)  # type: ignore[no-untyped-call]

    def request_force_stop(self, signum: int, frame: Any) -> None:
        """Hand the run over at once. A second signal comes here, unless it is the first one's echo."""
        if os.getpid() == self._pid and self._asked_long_ago:
            self._leaving.hand_over()

    def set_shutdown_requested_date(self) -> None:
        """For a person who looks at the worker; it is told to leave whether Redis is there or not."""
        with suppress(RedisError):
            super().set_shutdown_requested_date()  # type: ignore[no-untyped-call]

    def _install_signal_handlers(self) -> None:
        super()._install_signal_handlers()  # type: ignore[no-untyped-call]
        signal.signal(HAND_OVER, self._leave_now)

    def _leave_now(self, signum: int, frame: Any) -> None:
        if os.getpid() != self._pid:
            os._exit(1)  # a horse that has not begun
        self._leaving.hand_over()
        if not self.ended_on_request:
            self.request_stop(signum, frame)


async def _recovered(
    settings: Settings, job: Job, *, why: str, killed: bool, out_of_time: bool, handed_over: bool
) -> None:
    """Bring the run on, if the attempt that died is still its last: the job says which it was.

    Its process had not taken the run yet if that is queued. Unless it was killed then, which costs the run an
    attempt, it ended for want of Redis: a reaper enqueues the run again when Redis is back.
    """
    session_id, run_id = job.args
    seconds = _HAND_OVER_SECONDS if handed_over else RECOVER_SECONDS
    async with asyncio.timeout(seconds), connect(settings) as database:
        run = await Runs(database).get(session_id, run_id)
        if run is None or not run.active or run.attempt != job.meta["attempt"]:
            return
        with closing(Jobs(settings)) as jobs:
            recovery = Recovery(settings, database, jobs)
            if handed_over:
                await recovery.hand_over(run)
            elif run.state == "running" or killed:
                await recovery.recover(run, why=why, dead=True, out_of_time=out_of_time)
        ended = await Runs(database).get(session_id, run_id)
    if ended is not None and not ended.active:
        tell_lost(settings, run, status=ended.state, said=f"The attempt was lost: {why}")


def _was_killed(wait_status: int | None) -> bool:
    return wait_status is not None and os.WIFSIGNALED(wait_status)


def _end_of(wait_status: int | None) -> str:
    if wait_status is not None and _was_killed(wait_status):
        return f"was killed by {signal.Signals(os.WTERMSIG(wait_status)).name}"
    return "ended without finishing it"


def die_with_parent(sig: signal.Signals, parent: int) -> None:
    """Ask the kernel to send `sig` to this process when its parent dies; exit if `parent` is gone already."""
    if _LIBC is not None:
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(sig))
    if os.getppid() != parent:
        os._exit(1)


def work(settings: Settings) -> int:
    """Work until told to stop; the exit status: 0 on request, 1 when Redis went away."""
    worker = RunWorker(settings)
    level = "DEBUG" if settings.log_level == "debug" else "WARNING"
    worker.work(logging_level=level)
    return 0 if worker.ended_on_request else 1
