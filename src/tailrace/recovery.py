"""Recovery: what becomes of a run whose worker died, whose job vanished, or whose queue nobody serves."""

from __future__ import annotations

import logging
import os
import socket
import time

import msgspec
from redis.exceptions import RedisError

from tailrace.digest import Digest
from tailrace.ending import Failure, Outcome, timed_out, write_end, writer_for
from tailrace.errors import EnqueueFailed, Fenced
from tailrace.eventlog import End, EventLog
from tailrace.events import Draft
from tailrace.jobs import Jobs
from tailrace.leases import Leases
from tailrace.metrics import CANCELS, RUNS_LOST
from tailrace.mongo import Database
from tailrace.runs import Run, Runs, root_observation
from tailrace.sessions import Sessions
from tailrace.settings import Settings

__all__ = ["Recovery"]

log = logging.getLogger(__name__)

SHORT_SECONDS = 2 * 86_400.0  # no run waits for a worker that long


class Recovery:
    """Brings runs that nobody works on to their next attempt, or to their `finish`.

    Any number of processes may try the same run at once: an atomic update lets one of them do it, and what a
    process leaves half done when it dies, another finds by the lease.
    """

    def __init__(self, settings: Settings, database: Database, jobs: Jobs) -> None:
        self._settings = settings
        self._database = database
        self._jobs = jobs
        self._runs = Runs(database)
        self._leases = Leases(database)
        self._log = EventLog(database, retention_seconds=settings.retention_seconds)

    async def introduce(self, run: Run, *, behind: End | None = None) -> Run:
        """Tell the readers of a new run, if nobody did: its `run_queued` is its first event.

        Returns it with `first_seq`. Several processes may do this at once. `behind` is the log's end as it
        was before the run was stored, where that is known.
        """
        root = root_observation(run.run_id, attempt=1) if run.trace_id else None
        data = {"agent": run.agent}
        queued = Draft(event_type="run_queued", data=data, trace_id=run.trace_id, observation_id=root)
        first = await writer_for(self._database, self._log, run).begin(queued, behind=behind)
        digest = Digest()
        digest.update(first.to_json())
        run = msgspec.structs.replace(run, first_seq=first.seq, first_digest=digest.hexdigest())
        await self._runs.began(run)
        if 0 < self._kept_seconds(run) < SHORT_SECONDS:
            # It may expire while the run still waits for a worker, and `seq` must go on from there.
            await Sessions(self._database).remember_last_seq(run.session_id, first.seq)
        return run

    def _kept_seconds(self, run: Run) -> float:
        asked = run.retention_seconds
        return self._settings.retention_seconds if asked is None else asked

    async def tend(self, run: Run) -> None:
        """Do what an active run whose lease has run out needs."""
        if run.state == "running":
            await self.recover(run, why="its worker gave no sign of life.", dead=False)
        elif run.first_seq is None:
            await self._introduce_late(run)
        elif run.cancel_requested:
            await self.finish_queued(run, Outcome(status="cancelled"))
        elif await self._jobs.waits(run):
            await self._tend_waiting(run)
        else:
            await self._enqueue(run)

    async def recover(self, run: Run, *, why: str, dead: bool, out_of_time: bool = False) -> None:
        """Give a lost run its next attempt, or its `finish` when it was cancelled or has had its attempts.

        `dead` says that the process of this very attempt is known to be gone; else only a lease that has run
        out counts. With `out_of_time` it had run for as long as it may: it ends with a timeout.
        """
        taken = await self._leases.take(run, dead=dead)
        if taken is None:
            return
        log.warning("A run was lost", extra={"action": "recover", **_names(taken), "error": why})
        if taken.cancel_requested:
            RUNS_LOST.add("cancelled")
            await self.finish_queued(taken, Outcome(status="cancelled"))
        elif out_of_time:
            RUNS_LOST.add("timeout")
            await self.finish_queued(taken, timed_out(self._settings.run_timeout_seconds))
        elif taken.attempt - taken.handovers > self._settings.max_attempts:
            RUNS_LOST.add("lost")
            failure = Failure(code="worker_lost", message=f"The run was lost: {why}", retryable=True)
            await self.finish_queued(taken, Outcome(status="lost", failure=failure))
        else:
            RUNS_LOST.add("retried")
            await self._enqueue(taken)

    async def hand_over(self, run: Run) -> None:
        """Let another worker begin `run` again: its own leaves, and has ended the process that performed it.

        Nobody failed, so it costs the run none of its attempts.
        """
        if run.state == "running":
            taken = await self._leases.take(run, dead=True, handed_over=True)
            if taken is None:
                return
            run = taken
        log.info("A run is handed over", extra={"action": "hand over", **_names(run)})
        if run.cancel_requested:
            await self.finish_queued(run, Outcome(status="cancelled"))
        else:
            await self._enqueue(run)

    async def cancel(self, session_id: str, run_id: str | None = None) -> Run | None:
        """Ask for the end of the session's active run; it, or None when nothing is active, or not `run_id`.

        A queued run ends here and now, a running one is told: over Redis at once, else at its next beat.
        """
        run = await self._runs.request_cancel(session_id, run_id)
        if run is None:
            return None
        CANCELS.add()
        # A run without its first event is being started this moment: its end must not stand before that.
        waits = run.state == "queued" and run.first_seq is not None
        if waits and await self.finish_queued(run, Outcome(status="cancelled")):
            return run
        try:
            await self._jobs.cancel(run)
        except (RedisError, OSError) as error:
            log.warning(
                "A cancel takes longer", extra={"action": "cancel", **_names(run), "error": str(error)}
            )
        return run

    async def promote(self, session_id: str) -> None:
        """Let the session's next waiting run begin, if none is active."""
        run = await self._runs.promote(session_id)
        if run is not None:
            # Whoever stored it may be dead, or about to tell of it.
            await self._enqueue(run if run.first_seq is not None else await self.introduce(run))

    async def finish_queued(self, run: Run, outcome: Outcome) -> bool:
        """Write the end of a run that no worker has; False when one took it first."""
        worker = f"recovery:{socket.gethostname()}:{os.getpid()}"
        started = await self._runs.start(run.session_id, run.run_id, worker=worker)
        if started is None:
            return False
        own, _ = started
        try:
            writer = writer_for(self._database, self._log, own)
            await write_end(self._database, writer, own, outcome, takes_over=True)
        except Fenced:
            return False
        await self.promote(run.session_id)
        return True

    async def _introduce_late(self, run: Run) -> None:
        """The process that stored the run died before it told of it, or before it noted that it had."""
        if await self._leases.renew(run) is None:
            return
        await self._enqueue(await self.introduce(run))

    async def _tend_waiting(self, run: Run) -> None:
        waited = time.time() - run.created_at
        if waited > self._settings.queue_timeout_seconds and not await self._jobs.served():
            message = f"No worker took the run within {waited:.0f} seconds: no worker serves the queue."
            failure = Failure(code="no_worker", message=message, retryable=True)
            await self.finish_queued(run, Outcome(status="timeout", failure=failure))
        else:
            await self._leases.renew(run)

    async def _enqueue(self, run: Run) -> None:
        try:
            await self._jobs.enqueue(run)
        except EnqueueFailed as error:
            log.warning(
                "A run waits for Redis", extra={"action": "enqueue", **_names(run), "error": str(error)}
            )
        await self._leases.renew(run)  # the next look is after that


def _names(run: Run) -> dict[str, object]:
    return {"session_id": run.session_id, "run_id": run.run_id, "attempt": run.attempt}
