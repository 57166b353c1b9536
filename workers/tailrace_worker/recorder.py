"""The recorder: writes down one run, its events and its messages, and ends it with exactly one `finish`."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any

from tailrace.errors import Fenced
from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.messages import Message
from tailrace.mongo import Database, patiently
from tailrace.runs import Run, Runs
from tailrace.sessions import Sessions
from tailrace.writer import Writer
from tailrace_worker.assistant import Output
from tailrace_worker.conversation import Conversation
from tailrace_worker.emitter import Emitter
from tailrace_worker.envelope import Envelope
from tailrace_worker.failures import Outcome

__all__ = ["Recorder", "write_end", "writer_for"]

log = logging.getLogger(__name__)


class Recorder:
    """Keeps messages and emits events, in the order they are given."""

    def __init__(self, emitter: Emitter, conversation: Conversation, envelope: Envelope) -> None:
        self._emitter = emitter
        self._conversation = conversation
        self._envelope = envelope

    async def record(self, outputs: Iterable[Output]) -> None:
        """Keep the messages among `outputs` and emit the drafts.

        Raises `Fenced` when the run is no longer this attempt's.
        """
        for output in outputs:
            if isinstance(output, Draft):
                await self._emitter.emit(output)
            else:
                await self._conversation.add(output)

    async def begin(self, run: Run, *, model: str) -> None:
        """Tell that the agent starts, and what it was asked."""
        await self._emitter.emit(self._envelope.draft("agent_start", {"agent": run.agent, "model": model}))
        prompt = self._prompt(run)
        await self.record([prompt, self._envelope.completed(prompt)])

    def _prompt(self, run: Run) -> Message:
        # The same id in every attempt: a prompt is asked once.
        return self._envelope.message(
            role="user", message_id=f"{run.run_id}-0", content=run.prompt, content_parts=run.content_parts
        )

    async def flush(self) -> None:
        """Return when everything recorded is durable; raises like `record`."""
        await self._emitter.flush()


def writer_for(database: Database, run: Run, *, retention_seconds: float) -> Writer:
    """A new writer for this attempt of `run`, fenced by the run's document."""
    runs = Runs(database)
    return Writer(
        EventLog(database, retention_seconds=retention_seconds),
        run.session_id,
        run_id=run.run_id,
        attempt=run.attempt,
        owns=lambda: runs.owns(run.run_id, run.attempt),
    )


async def write_end(
    database: Database,
    writer: Writer,
    run: Run,
    envelope: Envelope,
    outcome: Outcome,
    *,
    usage: dict[str, Any],
) -> None:
    """Append what ends `run`, `finish` last, and close its document.

    Raises `Fenced` when the run is no longer this attempt's; nothing is then written after the fence.
    """
    if not await patiently(lambda: Runs(database).owns(run.run_id, run.attempt)):
        # The log notices a fence only where two writers collide; here nobody else need be writing.
        raise Fenced
    failure = outcome.failure
    drafts = []
    if failure is not None:
        data = {"code": failure.code, "message": failure.message, "retryable": failure.retryable}
        drafts.append(envelope.draft("run_error", data))
    ended = {"status": outcome.status, **({"usage": usage} if usage else {})}
    await writer.append([*drafts, envelope.draft("agent_end", ended)])
    # Before the finish: whoever sees it may delete or expire the events, and `seq` must go on from there.
    await patiently(lambda: Sessions(database).remember_last_seq(run.session_id, writer.last_seq + 1))
    (finish,) = await writer.append([envelope.draft("finish", {"status": outcome.status})])
    error = failure.message if failure else None
    await patiently(
        lambda: Runs(database).end(
            run.run_id, run.attempt, status=outcome.status, last_seq=finish.seq, error=error
        )
    )
