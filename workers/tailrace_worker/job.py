"""The RQ job of one run: the composition root of the agent's side.

An agent's failure, a timeout and a cancellation are ends of a run like success: they are recorded in MongoDB,
and the job returns. A failed job in RQ's registry therefore means that the infrastructure failed.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractContextManager, aclosing, closing, nullcontext
from typing import Any

from langchain_core.messages import BaseMessage, HumanMessage
from langgraph.pregel.protocol import PregelProtocol
from redis.asyncio import Redis

from tailrace.ending import Outcome, close_document, message_writer_for, timed_out, write_end, writer_for
from tailrace.errors import Fenced
from tailrace.eventlog import End, EventLog
from tailrace.jobs import Jobs
from tailrace.leases import Leases
from tailrace.logs import bound
from tailrace.messages import prompt_id
from tailrace.metrics import CANCEL_SECONDS, FIRST_EVENT_SECONDS, RUN_SECONDS
from tailrace.mongo import Database, patiently
from tailrace.recovery import Recovery
from tailrace.runs import Run, Runs
from tailrace.settings import Settings
from tailrace.writer import Writer
from tailrace_worker.agents import Agent, AgentContext, build_agent, build_model
from tailrace_worker.ancestry import Ancestry
from tailrace_worker.conversation import content_of, to_langchain
from tailrace_worker.emitter import Emitter
from tailrace_worker.envelope import Envelope
from tailrace_worker.failures import explain
from tailrace_worker.groundwork import groundwork
from tailrace_worker.hold import Hold, held
from tailrace_worker.keeper import keeping
from tailrace_worker.progress import Progress, shown
from tailrace_worker.recorder import Recorder
from tailrace_worker.redis_client import redis_client
from tailrace_worker.taking import Taken, take
from tailrace_worker.tracing import Trace, traced
from tailrace_worker.translate import Translator

__all__ = ["perform", "perform_run"]

log = logging.getLogger(__name__)


def perform(session_id: str, run_id: str) -> None:
    """Run the agent of one run to its `finish`; named by string in `tailrace.jobs.PERFORM`."""
    with groundwork() as ground:
        ground.run(
            perform_run(
                ground.settings, ground.database, session_id, run_id, redis=ground.redis, give_up=_die
            )
        )


def _die() -> None:
    """End a process whose agent does not end, with what it started; its worker brings the run on."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGKILL)  # a horse leads its group
    os.kill(os.getpid(), signal.SIGKILL)


async def perform_run(
    settings: Settings,
    database: Database,
    session_id: str,
    run_id: str,
    *,
    redis: Redis | None = None,
    give_up: Callable[[], None] | None = None,
) -> None:
    """Take the queued run and bring it to its `finish`.

    `redis` is a client that is connected already, if there is one.
    Returns without a word when another worker took it, it has ended, or it is taken away while it runs.
    `give_up` is called, in another thread, when the agent goes on long after it should have ended.
    """
    taken = await take(settings, database, session_id, run_id)
    if taken is None:
        log.info("the run is not there to be taken", extra={"session_id": session_id, "run_id": run_id})
        return
    run = taken.run
    with traced(settings, run, lost_since=taken.lost_since) as trace, _logged(run, trace):
        try:
            async with (
                nullcontext(redis) if redis else redis_client(settings) as client,
                held(client, database, run) as hold,
                keeping(settings, run, hold, Leases(database), give_up=give_up),
                shown(client, run, then=trace.stored) as progress,
            ):
                await _Performance(
                    settings, database, taken, trace=trace, hold=hold, progress=progress
                ).play()
            await _promote_next(settings, database, session_id)
        except Fenced:
            log.warning("the run was taken away", extra={"session_id": session_id, "run_id": run_id})
            found = await patiently(lambda: Runs(database).get(session_id, run_id))
            if found is None or not found.active:
                trace.ended(Outcome(status="lost"))  # no other attempt follows that would tell of this one


def _logged(run: Run, trace: Trace) -> AbstractContextManager[None]:
    return bound(session_id=run.session_id, run_id=run.run_id, attempt=run.attempt, trace_id=trace.trace_id)


async def _promote_next(settings: Settings, database: Database, session_id: str) -> None:
    """Let the session's next waiting run begin; if this process dies before, an API does it."""
    with closing(Jobs(settings)) as jobs:
        await patiently(lambda: Recovery(settings, database, jobs).promote(session_id))


class _Performance:
    """One run on its way from `agent_start` to `finish`."""

    def __init__(
        self,
        settings: Settings,
        database: Database,
        taken: Taken,
        *,
        trace: Trace,
        hold: Hold,
        progress: Progress,
    ) -> None:
        self._hold = hold
        self._progress = progress
        self._settings = settings
        self._database = database
        self._taken = taken
        self._run = taken.run
        self._trace = trace
        self._ancestry = Ancestry()
        self._envelope = Envelope(self._run, trace, parents_of=self._ancestry.parents_of)
        self._translator = Translator(self._envelope)

    async def play(self) -> None:
        """Run the agent and write all of it down.

        Raises `Fenced` when the run is taken away.
        """
        writer = self._writer(behind=self._taken.end)
        if self._run.attempt > 1:
            if not await self._superseded(writer):
                return
            self._trace.begins(writer.last_seq)
        outcome = Outcome(status="success")
        try:
            async with Emitter(writer, on_stored=self._progress.stored) as emitter:
                outcome = await self._outcome(emitter)
        except Fenced:
            raise
        except asyncio.CancelledError:
            # Before the agent began, or after it ended: the end is still to be written.
            if (task := asyncio.current_task()) is not None:
                task.uncancel()
            if self._hold.lost:
                raise Fenced from None
            outcome = Outcome(status="cancelled")
            writer = self._writer()
        except Exception as error:
            # The log refused an event. A new writer sees where the log stands and can still write the end.
            log.exception("events were refused", extra=self._who)
            outcome = Outcome(status="error", failure=explain(error))
            writer = self._writer()
        await write_end(
            self._database,
            writer,
            self._run,
            outcome,
            usage=self._translator.usage,
            trace_id=self._trace.trace_id,
            observation_id=self._trace.root_id,
        )
        self._progress.state = outcome.status
        took = time.time() - (self._run.started_at or time.time())
        RUN_SECONDS.observe(took)
        log.info(
            "a run ended", extra={"action": "finish", "status": outcome.status, "seconds": round(took, 3)}
        )
        if outcome.status == "cancelled" and self._hold.told_at is not None:
            CANCEL_SECONDS.observe(time.monotonic() - self._hold.told_at)
        self._trace.ended(outcome, answer=self._translator.answer, last_seq=writer.last_seq)

    async def _superseded(self, writer: Writer) -> bool:
        """Begin a further attempt: fence the one before and void what it showed; False if it had finished."""
        behind_queued = (self._run.first_seq or 0) + 1
        draft = self._envelope.draft("attempt_superseded", {"from_seq": behind_queued})
        finish = await writer.take_over([draft])
        if finish is not None:
            await close_document(self._database, self._run, finish, error=self._run.error)
            return False
        return True

    @property
    def _who(self) -> dict[str, str]:
        return {"action": "perform", "session_id": self._run.session_id, "run_id": self._run.run_id}

    def _writer(self, *, behind: End | None = None) -> Writer:
        event_log = EventLog(self._database, retention_seconds=self._settings.retention_seconds)
        return writer_for(self._database, event_log, self._run, behind=behind)

    async def _outcome(self, emitter: Emitter) -> Outcome:
        messages = message_writer_for(self._database, self._run, behind=self._taken.newest)
        recorder = Recorder(emitter, messages, self._envelope, ends=self._hold.disarm)
        await recorder.begin(self._run, model=self._run.model or self._settings.model)
        outcome = await self._guarded(recorder)
        partial = "complete" if outcome.status == "success" else outcome.status
        await recorder.record(self._translator.close(status="error" if partial == "timeout" else partial))
        await recorder.flush()
        return outcome

    async def _guarded(self, recorder: Recorder) -> Outcome:
        """The outcome of the agent, whatever it raises: only `Fenced` gets through."""
        deadline = asyncio.timeout(self._settings.run_timeout_seconds)
        try:
            self._hold.arm()
            async with deadline:
                await self._iterate(recorder, to_langchain(self._taken.earlier))
        except Fenced:
            raise
        except asyncio.CancelledError as error:
            task = asyncio.current_task()
            if task is None or not task.cancelling():
                return Outcome(status="error", failure=explain(error))
            task.uncancel()  # the end is still to be written
            if self._hold.lost:
                raise Fenced from error
            return Outcome(status="cancelled")
        except BaseException as error:
            if isinstance(error, TimeoutError) and deadline.expired():
                return timed_out(self._settings.run_timeout_seconds)
            log.warning("the agent failed", extra=self._who, exc_info=error)
            return Outcome(status="error", failure=explain(error))
        finally:
            self._hold.disarm()
        return Outcome(status="success")

    async def _iterate(self, recorder: Recorder, earlier: list[BaseMessage]) -> None:
        self._translator = Translator(
            self._envelope,
            ancestry=self._ancestry,
            known_ids=frozenset(message.id for message in earlier if message.id),
        )
        prompt = HumanMessage(content_of(self._run.prompt, self._run.content_parts), id=prompt_id(self._run))
        async with aclosing(await self._stream([*earlier, prompt])) as stream:
            waited = self._run.attempt == 1
            async for mode, payload in stream:
                if waited:
                    FIRST_EVENT_SECONDS.observe(time.time() - self._run.created_at)
                    waited = False
                await recorder.record(self._translator.translate(mode, payload))

    async def _stream(self, messages: list[Any]) -> Any:
        context = AgentContext(
            settings=self._settings,
            run=self._run,
            database=self._database,
            model=build_model(self._settings, self._run.model),
        )
        return _items(await build_agent(context), {"messages": messages}, self._config())

    def _config(self) -> dict[str, Any]:
        return {
            "run_name": self._run.agent,
            "callbacks": [self._ancestry, *self._trace.callbacks],
            "metadata": {"session_id": self._run.session_id},
            # A graph with a checkpointer starts afresh in each attempt: Tailrace gives the earlier messages.
            "configurable": {"thread_id": f"{self._run.run_id}-{self._run.attempt}"},
        }


async def _items(
    agent: Agent, given: dict[str, Any], config: dict[str, Any]
) -> AsyncIterator[tuple[str, Any]]:
    """What the agent streams, as a generator that can be closed, whatever the agent is."""
    # Only a graph has graphs within it, whose items come with their place before the mode.
    within: dict[str, Any] = {"subgraphs": True} if isinstance(agent, PregelProtocol) else {}
    modes = ["messages", "updates", "custom"]
    stream: Any = agent.astream(given, stream_mode=modes, config=config, **within)
    try:
        async for *_, mode, payload in stream:
            yield mode, payload
    finally:
        if (close := getattr(stream, "aclose", None)) is not None:
            await close()
