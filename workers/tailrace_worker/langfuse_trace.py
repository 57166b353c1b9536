"""The Langfuse trace of a run: its root, its spans by LangChain's callbacks, and their way out.

Imports Langfuse: import this module only where tracing is on.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from hashlib import sha256
from typing import Any

from langfuse import Langfuse, propagate_attributes
from langfuse import LangfuseOtelSpanAttributes as Attribute
from opentelemetry.sdk.trace import SpanProcessor, TracerProvider
from opentelemetry.trace import Link, Span, Tracer, use_span

from tailrace.ending import Outcome
from tailrace.events import Event
from tailrace.runs import Run, root_observation
from tailrace.settings import Settings
from tailrace_worker.langfuse_handler import RunHandler
from tailrace_worker.langfuse_root import (
    begin_root,
    finish_root,
    level_of,
    resource,
    tags_of,
    trace_id_of,
    tracer_of,
)
from tailrace_worker.spans import Gate, Ledger, PinnedIds, metadata, pinned
from tailrace_worker.tracing import Trace

__all__ = ["langfuse_trace"]

log = logging.getLogger(__name__)

FLUSH_SECONDS = 2.0  # a horse ends with os._exit, so spans must be out by then; nobody there must not hold it
EXPORT_SECONDS = 1.0  # between exports while the run goes on: what a killed horse loses

_DIED = "The attempt ended without a finish: its worker died, or handed the run over."
_TAKEN = "The run was taken away from this attempt."


class LangfuseTrace(Trace):
    """The trace of one attempt, while it goes on."""

    def __init__(self, settings: Settings, run: Run, root: Span, ledger: Ledger) -> None:
        self.trace_id = trace_id_of(run)
        self.root_id = root_observation(run.run_id, run.attempt)
        self._run = run
        self._root = root
        self._ledger = ledger
        self._handler = RunHandler(settings.langfuse_public_key, tool_of=self._tool)
        self.callbacks = (self._handler,)
        self._first_seq = run.first_seq if run.attempt == 1 else None
        self._outcome: Outcome | None = None

    def generation_of(self, *keys: str | None) -> str | None:
        """The observation of the first key that is known."""
        found = (self._handler.generations.get(key) for key in keys if key)
        return next(filter(None, found), None)

    def tool_of(self, call_id: str) -> str | None:
        """Derived from the call, since its `tool_start` is told before the tool begins."""
        return self._tool(call_id) if call_id else None

    def _tool(self, call_id: str) -> str:
        return sha256(f"{self.root_id}:{call_id}".encode()).hexdigest()[:16]

    def begins(self, seq: int) -> None:
        """The root's range begins at `seq`."""
        self._first_seq = seq

    def stored(self, events: Sequence[Event]) -> None:
        """Note which of them came from which span."""
        try:
            if self._first_seq is None and events:
                self._first_seq = events[0].seq
            self._ledger.stored(events)
        except Exception:  # in the middle of a run, which is worth more
            log.exception("events are missing in the trace", extra=self._who)

    def ended(self, outcome: Outcome, *, answer: str = "", last_seq: int | None = None) -> None:
        """Note on the root what it came to; it ends with the trace."""
        self._outcome = outcome
        self._root.set_attributes(metadata(seq_first=self._first_seq, seq_last=last_seq))
        if answer:
            self._root.set_attributes({Attribute.OBSERVATION_OUTPUT: answer, "langfuse.trace.output": answer})

    def close(self, tracer: Tracer) -> None:
        """End what is still open, and the root if its end is known; if not, the next attempt tells it."""
        outcome, said = self._outcome, _TAKEN
        if outcome is not None and outcome.status != "lost":
            said = outcome.failure.message if outcome.failure else f"The run ended: {outcome.status}."
        failed = outcome is not None and level_of(outcome.status) == "ERROR"
        self._ledger.close(level="ERROR" if failed else "WARNING", status=said)
        for span_id, data in self._ledger.told_only().items():
            _never_ran(tracer, span_id, data)
        if outcome is not None:
            finish_root(self._root, status=outcome.status, said=said)

    @property
    def _who(self) -> dict[str, str]:
        return {"action": "trace", "session_id": self._run.session_id, "run_id": self._run.run_id}


@contextmanager
def langfuse_trace(settings: Settings, run: Run, *, lost_since: float | None) -> Iterator[LangfuseTrace]:
    """The trace of this attempt; on exit what is left of it is sent, for up to `FLUSH_SECONDS`."""
    client, provider = _client(settings)
    tracer = tracer_of(provider, settings)
    root_id = root_observation(run.run_id, run.attempt)
    with provider.gate.watching(trace_id_of(run), root_id=root_id) as ledger, _on_all_spans(run):
        root = begin_root(tracer, run, run.attempt, links=_told_lost(tracer, run, lost_since))
        with use_span(root, end_on_exit=False, record_exception=False, set_status_on_exception=False):
            trace = LangfuseTrace(settings, run, root, ledger)
            try:
                yield trace
            finally:
                try:
                    trace.close(tracer)
                    _flush(client)
                except Exception:
                    log.exception("the trace is incomplete", extra={"action": "trace", "run_id": run.run_id})


def _told_lost(tracer: Tracer, run: Run, since: float | None) -> list[Link]:
    """Send the root of the attempt before, which its process did not live to send; a link to it."""
    if since is None or run.attempt == 1:
        return []
    lost = begin_root(tracer, run, run.attempt - 1, start=since)
    finish_root(lost, status="lost", said=_DIED)
    return [Link(lost.get_span_context())]


def _on_all_spans(run: Run) -> Any:
    """What each span of the attempt carries, so that Langfuse can filter by it."""
    return propagate_attributes(
        user_id=run.user,
        session_id=run.session_id,
        trace_name=run.agent,
        tags=tags_of(run, run.attempt),
        metadata={"tailrace.run_id": run.run_id, "tailrace.attempt": run.attempt},
    )


class _Provider(TracerProvider):
    """Puts a gate before the processor that the SDK adds."""

    gate: Gate

    def add_span_processor(self, span_processor: SpanProcessor) -> None:
        self.gate = Gate(span_processor)
        super().add_span_processor(self.gate)


def _client(settings: Settings) -> tuple[Langfuse, _Provider]:
    return _made(settings.langfuse_public_key, settings.langfuse_secret_key, settings.langfuse_url)


@cache
def _made(public_key: str, secret_key: str, url: str) -> tuple[Langfuse, _Provider]:
    """One a process, as the SDK has it, which is one a horse: never made before a fork."""
    provider = _Provider(id_generator=PinnedIds(), resource=resource(), shutdown_on_exit=False)
    client = Langfuse(
        public_key=public_key,
        secret_key=secret_key,
        base_url=url,
        tracer_provider=provider,
        flush_interval=EXPORT_SECONDS,
    )
    return client, provider


def _never_ran(tracer: Tracer, span_id: str, data: dict[str, Any]) -> None:
    """A tool that the model asked for and that did not begin: there are events of it, so there is a span."""
    attributes = {
        Attribute.OBSERVATION_TYPE: "tool",
        Attribute.OBSERVATION_INPUT: json.dumps(data.get("input"), default=str),
        Attribute.OBSERVATION_LEVEL: "WARNING",
        Attribute.OBSERVATION_STATUS_MESSAGE: "The tool did not run.",
    }
    with pinned(span_id):
        tracer.start_span(str(data.get("name") or "tool"), attributes=attributes).end()


def _flush(client: Langfuse) -> None:
    """In a thread that the process need not outlive: the exporter retries an unreachable host for long."""
    flushing = threading.Thread(target=client.flush, name="langfuse-flush", daemon=True)
    flushing.start()
    flushing.join(FLUSH_SECONDS)
    if flushing.is_alive():
        log.warning("Langfuse does not answer; spans of the run may be lost", extra={"action": "flush"})
