"""How a run ends: what is said of it, and the order in which its end becomes durable."""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.digest import Digest
from tailrace.errors import Fenced
from tailrace.eventlog import End, EventLog
from tailrace.events import Draft, Event
from tailrace.message_writer import MessageWriter
from tailrace.messages import Message, Messages, prompt_of
from tailrace.metrics import RUNS_FINISHED
from tailrace.mongo import Database, patiently
from tailrace.runs import FinishStatus, Run, Runs
from tailrace.sessions import Sessions
from tailrace.writer import Writer

__all__ = [
    "Failure",
    "Outcome",
    "close_document",
    "message_writer_for",
    "timed_out",
    "write_end",
    "writer_for",
]


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """The data of a `run_error`."""

    code: str  # for a program
    message: str  # for a person: no traceback
    retryable: bool = False  # whether the same prompt may well succeed later


class Outcome(msgspec.Struct, frozen=True, kw_only=True):
    """How a run ended."""

    status: FinishStatus
    failure: Failure | None = None


def timed_out(seconds: float) -> Outcome:
    """The end of a run that took longer than it may."""
    message = f"The run took longer than {seconds:g} seconds and was stopped (TAILRACE_RUN_TIMEOUT_SECONDS)."
    return Outcome(status="timeout", failure=Failure(code="timeout", message=message, retryable=True))


def writer_for(database: Database, event_log: EventLog, run: Run, *, behind: End | None = None) -> Writer:
    """A new writer for this attempt of `run`, fenced by the run's document; `behind` as `Writer` has it."""
    runs, sessions = Runs(database), Sessions(database)
    # Of a run that has had no other attempt nothing else stands yet, and nobody else adds to it.
    begun = run.first_digest if behind is not None and run.attempt == 1 else None
    return Writer(
        event_log if run.retention_seconds is None else event_log.kept_for(run.retention_seconds),
        run.session_id,
        run_id=run.run_id,
        attempt=run.attempt,
        first_seq=run.first_seq or run.behind_seq + 1,
        owns=lambda: runs.owns(run),
        behind=behind,
        digest=Digest(begun) if begun else None,
        # Whoever sees the finish may delete or expire the events, and `seq` must go on from there.
        finishing=lambda seq: patiently(lambda: sessions.remember_last_seq(run.session_id, seq)),
    )


def message_writer_for(
    database: Database, run: Run, *, behind: Message | None, late: bool = False
) -> MessageWriter:
    """The same for its messages, with the rest as `MessageWriter` has it."""
    runs = Runs(database)
    return MessageWriter(Messages(database), run, owns=lambda: runs.owns(run), behind=behind, late=late)


async def write_end(
    database: Database,
    writer: Writer,
    run: Run,
    outcome: Outcome,
    *,
    usage: dict[str, Any] | None = None,
    trace_id: str | None = None,
    observation_id: str | None = None,
    takes_over: bool = False,
) -> None:
    """Append what ends `run`, `finish` last, and close its document.

    With `takes_over` this is the attempt's first write: a `finish` that the attempt before left counts, and a
    prompt that none has told is told first.
    Raises `Fenced` when the run is no longer this attempt's; nothing is then written after the fence.
    """
    if not await patiently(lambda: Runs(database).owns(run)):
        # The log notices a fence only where two writers collide; here nobody else need be writing.
        raise Fenced

    traced: dict[str, Any] = {"trace_id": trace_id or run.trace_id, "observation_id": observation_id}
    drafts = _drafts(outcome, usage or {}, traced)
    if takes_over:
        prompt = prompt_of(run)
        earlier = await patiently(lambda: Messages(database).last(run.session_id, 1, but=run.run_id))
        messages = message_writer_for(database, run, behind=earlier[-1] if earlier else None, late=True)
        untold = not await messages.holds(prompt)
        told = Draft(
            event_type="message_complete", data=prompt.told(), message_id=prompt.message_id, **traced
        )
        finish = await writer.take_over([told, *drafts] if untold else drafts)
        if finish is not None:
            await close_document(database, run, finish, error=run.error)
            return
        if untold:
            await messages.add(prompt)
        drafts = []
    end = Draft(event_type="finish", data={"status": outcome.status}, **traced)
    finish = (await writer.append([*drafts, end]))[-1]
    await close_document(database, run, finish, error=outcome.failure.message if outcome.failure else None)


async def close_document(database: Database, run: Run, finish: Event, *, error: str | None) -> None:
    """Mark `run` as ended, as its `finish` says."""
    status = finish.data["status"]
    if await patiently(lambda: Runs(database).end(run, status=status, last_seq=finish.seq, error=error)):
        RUNS_FINISHED.add(status)


def _drafts(outcome: Outcome, usage: dict[str, Any], traced: dict[str, Any]) -> list[Draft]:
    drafts = []
    if outcome.failure is not None:
        data = msgspec.to_builtins(outcome.failure)
        drafts.append(Draft(event_type="run_error", data=data, **traced))
    ended = {"status": outcome.status, **({"usage": usage} if usage else {})}
    return [*drafts, Draft(event_type="agent_end", data=ended, **traced)]
