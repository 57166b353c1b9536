"""How a run ends: what is said of it, and the order in which its end becomes durable."""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.errors import Fenced
from tailrace.eventlog import EventLog
from tailrace.events import Draft, Event
from tailrace.mongo import Database, patiently
from tailrace.runs import FinishStatus, Run, Runs
from tailrace.sessions import Sessions
from tailrace.writer import Writer

__all__ = ["Failure", "Outcome", "close_document", "write_end", "writer_for"]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a `run_error`."""

    code: str  # for a program
    message: str  # for a person: no traceback
    retryable: bool = False  # whether the same prompt may well succeed later


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    status: FinishStatus
    failure: Failure | None = None


def writer_for(database: Database, event_log: EventLog, run: Run) -> Writer:
    """A new writer for this attempt of `run`, fenced by the run's document."""
    runs = Runs(database)
    return Writer(
        event_log,
        run.session_id,
        run_id=run.run_id,
        attempt=run.attempt,
        first_seq=run.first_seq or run.behind_seq + 1,
        owns=lambda: runs.owns(run.run_id, run.attempt),
    )


async def write_end(
    database: Database,
    writer: Writer,
    run: Run,
    outcome: Outcome,
    *,
    usage: dict[str, Any] | None = None,
    trace_id: str | None = None,
    takes_over: bool = False,
) -> None:
    """Append what ends `run`, `finish` last, and close its document.

    With `takes_over` this is the attempt's first write: a `finish` that the attempt before left counts.
    Raises `Fenced` when the run is no longer this attempt's; nothing is then written after the fence.
    """
    if not await patiently(lambda: Runs(database).owns(run.run_id, run.attempt)):
        # The log notices a fence only where two writers collide; here nobody else need be writing.
        raise Fenced
    drafts = _drafts(outcome, usage or {}, trace_id or run.trace_id)
    if takes_over:
        finish = await writer.take_over(drafts)
        if finish is not None:
            await close_document(database, run, finish, error=run.error)
            return
    else:
        await writer.append(drafts)
    # Before the finish: whoever sees it may delete or expire the events, and `seq` must go on from there.
    await patiently(lambda: Sessions(database).remember_last_seq(run.session_id, writer.last_seq + 1))
    end = Draft(event_type="finish", data={"status": outcome.status}, trace_id=trace_id or run.trace_id)
    (finish,) = await writer.append([end])
    await close_document(database, run, finish, error=outcome.failure.message if outcome.failure else None)


async def close_document(database: Database, run: Run, finish: Event, *, error: str | None) -> None:
    """Mark `run` as ended, as its `finish` says."""
    status = finish.data["status"]
    await patiently(
        lambda: Runs(database).end(run.run_id, run.attempt, status=status, last_seq=finish.seq, error=error)
    )


def _drafts(outcome: Outcome, usage: dict[str, Any], trace_id: str | None) -> list[Draft]:
    drafts = []
    if outcome.failure is not None:
        data = msgspec.to_builtins(outcome.failure)
        drafts.append(Draft(event_type="run_error", data=data, trace_id=trace_id))
    ended = {"status": outcome.status, **({"usage": usage} if usage else {})}
    return [*drafts, Draft(event_type="agent_end", data=ended, trace_id=trace_id)]
