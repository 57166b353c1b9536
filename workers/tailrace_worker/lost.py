"""The end of a run whose process was killed: written by the worker that saw it die."""

from __future__ import annotations

import logging

from tailrace.eventlog import EventLog
from tailrace.events import Event
from tailrace.mongo import Database, connect
from tailrace.runs import Run, Runs
from tailrace.settings import Settings
from tailrace_worker.envelope import Envelope
from tailrace_worker.failures import Failure, Outcome
from tailrace_worker.recorder import write_end, writer_for

__all__ = ["finish_lost"]

log = logging.getLogger(__name__)

_PAGE = 1_000  # events a read


async def finish_lost(settings: Settings, session_id: str, run_id: str, *, why: str) -> bool:
    """Write `run_error` and `finish` with status lost, unless the run has ended; whether it did.

    Call it only when the run's process is known to be dead.
    """
    async with connect(settings) as database:
        run = await Runs(database).get(session_id, run_id)
        if run is None or not run.active:
            return False
        finish = await _finish_of(database, run, settings)
        if finish is not None:  # it died between its last event and the end of its document
            status = finish.data["status"]
            await Runs(database).end(run_id, run.attempt, status=status, last_seq=finish.seq, error=None)
            return False
        failure = Failure(code="worker_lost", message=f"The run was lost: {why}", retryable=True)
        writer = writer_for(database, run, retention_seconds=settings.retention_seconds)
        envelope = Envelope(run, trace_id=run.trace_id)
        await write_end(database, writer, run, envelope, Outcome(status="lost", failure=failure), usage={})
        log.warning("a lost run was finished", extra={"session_id": session_id, "run_id": run_id})
        return True


async def _finish_of(database: Database, run: Run, settings: Settings) -> Event | None:
    event_log = EventLog(database, retention_seconds=settings.retention_seconds)
    after = (run.first_seq or 1) - 1
    while events := await event_log.read(run.session_id, after=after, limit=_PAGE):
        for event in events:
            if event.run_id == run.run_id and event.event_type == "finish":
                return event
        after = events[-1].seq
    return None
