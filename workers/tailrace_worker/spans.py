"""Spans whose ids are chosen beforehand, and which leave once the log has what they produced.

Imports OpenTelemetry: import this module only where tracing is on.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from langfuse import LangfuseOtelSpanAttributes as Attribute
from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan, Span, SpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import Status, StatusCode, format_span_id

from tailrace.events import Event

__all__ = ["Gate", "Ledger", "PinnedIds", "metadata", "pinned"]

HOLD_SECONDS = 2.0  # at most, from a span's end: its events may be on their way, or it may have none

_PRODUCERS = ("generation", "tool")  # the observation types that events come from, and that LangChain ends

_trace_id: ContextVar[int | None] = ContextVar("trace_id", default=None)
_span_id: ContextVar[int | None] = ContextVar("span_id", default=None)


class PinnedIds(RandomIdGenerator):
    """Random ids, but for what `pinned` says."""

    def generate_trace_id(self) -> int:
        """The pinned trace id, or a random one."""
        return _trace_id.get() or super().generate_trace_id()

    def generate_span_id(self) -> int:
        """The pinned span id, or a random one."""
        return _span_id.get() or super().generate_span_id()


@contextmanager
def pinned(span_id: str, *, trace_id: str | None = None) -> Iterator[None]:
    """Give the span that the body starts this id (16 hex digits); and, as a root, this trace id (32)."""
    span = _span_id.set(int(span_id, 16))
    trace = _trace_id.set(int(trace_id, 16) if trace_id else None)
    try:
        yield
    finally:
        _span_id.reset(span)
        _trace_id.reset(trace)


def metadata(**values: Any) -> dict[str, str]:
    """Attributes that Langfuse shows as an observation's metadata, `tailrace.<name>`; None is left out."""
    prefix = f"{Attribute.OBSERVATION_METADATA}.tailrace."
    return {prefix + name: json.dumps(value) for name, value in values.items() if value is not None}


class Ledger:
    """One trace's spans, and which of the log's events came from which.

    An ended generation or tool is held until its last event stands in the log: then it leaves with the range
    of `seq` that it produced. `stored` is on the path of every token and calls nothing of OpenTelemetry.
    """

    def __init__(self, processor: SpanProcessor, *, root_id: str) -> None:
        self._processor = processor
        self._root_id = root_id  # says its range itself
        self._lock = threading.Lock()  # a tool may end its spans in a thread of its own
        self._seen: set[str] = set()
        self._open: dict[str, Span] = {}
        self._held: dict[str, tuple[float, ReadableSpan]] = {}  # since when, monotonic
        self._complete: set[str] = set()
        self._ranges: dict[str, list[int]] = {}  # first and last seq
        self._tools: dict[str, dict[str, Any]] = {}  # the data of each `tool_start`
        self._closed = False

    def stored(self, events: Sequence[Event]) -> None:
        """Note `events`, which a majority has."""
        for event in events:
            span_id = event.observation_id
            if span_id is None:
                continue
            found = self._ranges.get(span_id)
            if found is None:
                self._ranges[span_id] = [event.seq, event.seq]
            else:
                found[1] = event.seq
            if event.event_type == "message_complete":
                self._completed(span_id)
            elif event.event_type == "tool_start":
                self._tools[span_id] = event.data
        if self._held:
            self._release(ended_before=time.monotonic() - HOLD_SECONDS)

    def started(self, span: Span) -> None:
        """Note a span that begins."""
        span_id = _id(span)
        self._seen.add(span_id)
        with self._lock:
            self._open[span_id] = span

    def ended(self, span: ReadableSpan) -> None:
        """Let an ended span out, or hold it until its events stand in the log."""
        span_id = _id(span)
        kind = (span.attributes or {}).get(Attribute.OBSERVATION_TYPE)
        with self._lock:
            self._open.pop(span_id, None)
            if kind in _PRODUCERS and not (self._closed or span_id in self._complete):
                self._held[span_id] = (time.monotonic(), span)
                return
        self._let_out(span)

    def told_only(self) -> dict[str, dict[str, Any]]:
        """The `tool_start` data of tools that events tell of and that never began, by span id."""
        return {span_id: data for span_id, data in self._tools.items() if span_id not in self._seen}

    def close(self, *, level: str, status: str) -> None:
        """End what is open but the root, the innermost first, with `level` and `status`; hold nothing."""
        with self._lock:
            opened = [span for span_id, span in self._open.items() if span_id != self._root_id]
        for span in reversed(opened):
            span.set_attributes(
                {Attribute.OBSERVATION_LEVEL: level, Attribute.OBSERVATION_STATUS_MESSAGE: status}
            )
            if level == "ERROR":
                span.set_status(Status(StatusCode.ERROR, status))
            span.end()
        self._closed = True
        self._release(ended_before=float("inf"))

    def _completed(self, span_id: str) -> None:
        with self._lock:
            self._complete.add(span_id)
            held = self._held.pop(span_id, None)
        if held is not None:
            self._let_out(held[1])

    def _release(self, *, ended_before: float) -> None:
        with self._lock:
            due = [span_id for span_id, (since, _) in self._held.items() if since < ended_before]
            spans = [self._held.pop(span_id)[1] for span_id in due]
        for span in spans:
            self._let_out(span)

    def _let_out(self, span: ReadableSpan) -> None:
        found = self._ranges.get(_id(span))
        if found is not None and _id(span) != self._root_id:
            span = _annotated(span, metadata(seq_first=found[0], seq_last=found[1]))
        self._processor.on_end(span)


class Gate(SpanProcessor):
    """Stands before `processor` and shows each span of a watched trace to that trace's ledger."""

    def __init__(self, processor: SpanProcessor) -> None:
        self._processor = processor
        self._ledgers: dict[int, Ledger] = {}

    @contextmanager
    def watching(self, trace_id: str, *, root_id: str) -> Iterator[Ledger]:
        """Keep a ledger of the trace."""
        ledger = self._ledgers[int(trace_id, 16)] = Ledger(self._processor, root_id=root_id)
        try:
            yield ledger
        finally:
            self._ledgers.pop(int(trace_id, 16), None)

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Called by OpenTelemetry for each span."""
        self._processor.on_start(span, parent_context)
        if (ledger := self._ledger(span)) is not None:
            ledger.started(span)

    def on_end(self, span: ReadableSpan) -> None:
        """Called by OpenTelemetry for each span."""
        if (ledger := self._ledger(span)) is not None:
            ledger.ended(span)
        else:
            self._processor.on_end(span)

    def shutdown(self) -> None:
        """End the export."""
        self._processor.shutdown()

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """Send what has left the gate."""
        return self._processor.force_flush(timeout_millis)

    def _ledger(self, span: ReadableSpan) -> Ledger | None:
        return self._ledgers.get(span.context.trace_id) if span.context else None


def _id(span: ReadableSpan) -> str:
    return format_span_id(span.context.span_id) if span.context else ""


def _annotated(span: ReadableSpan, attributes: dict[str, str]) -> ReadableSpan:
    """An ended span takes no attributes any more; a copy does."""
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={**(span.attributes or {}), **attributes},
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )
