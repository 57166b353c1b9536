"""The root of an attempt's trace: what it says, how it ends, and how it is sent for a process that died.

Imports Langfuse: import this module only where tracing is on.
"""

from __future__ import annotations

import base64
import json
import os
from collections.abc import Sequence
from typing import Any

from langfuse import LangfuseOtelSpanAttributes as Attribute
from langfuse import __version__ as langfuse_version
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.trace import Link, Span, Status, StatusCode, Tracer

from tailrace.runs import Run, RunState, root_observation
from tailrace.settings import Settings
from tailrace_worker.spans import PinnedIds, metadata, pinned

__all__ = [
    "begin_root",
    "finish_root",
    "level_of",
    "resource",
    "send_lost",
    "tags_of",
    "trace_id_of",
    "tracer_of",
]

SEND_SECONDS = 2.0  # for the root of an attempt that died

_LEVELS = {"success": "DEFAULT", "cancelled": "WARNING"}  # of the others: ERROR


def begin_root(
    tracer: Tracer, run: Run, attempt: int, *, start: float | None = None, links: Sequence[Link] = ()
) -> Span:
    """Begin the root of an attempt, under the id known beforehand; `start` in Unix seconds, or now."""
    asked = json.dumps(run.content_parts) if run.content_parts else run.prompt
    attributes: dict[str, Any] = {
        Attribute.OBSERVATION_TYPE: "agent",
        Attribute.TRACE_NAME: run.agent,
        Attribute.TRACE_USER_ID: run.user,
        Attribute.TRACE_SESSION_ID: run.session_id,
        Attribute.TRACE_TAGS: tags_of(run, attempt),
        Attribute.OBSERVATION_INPUT: asked,
        "langfuse.trace.input": asked,
        **metadata(run_id=run.run_id, attempt=attempt),
    }
    begin = None if start is None else int(start * 1e9)
    with pinned(root_observation(run.run_id, attempt), trace_id=trace_id_of(run)):
        return tracer.start_span("run", Context(), attributes=attributes, links=links, start_time=begin)


def finish_root(root: Span, *, status: RunState, said: str) -> None:
    """Say how the attempt ended, and end its root."""
    level = level_of(status)
    root.set_attributes({Attribute.OBSERVATION_LEVEL: level, **metadata(status=status)})
    if level != "DEFAULT":
        root.set_attribute(Attribute.OBSERVATION_STATUS_MESSAGE, said)
    if level == "ERROR":
        root.set_status(Status(StatusCode.ERROR, said))
    root.end()


def send_lost(settings: Settings, run: Run, *, status: RunState, said: str) -> None:
    """Send the root of an attempt that died, here and now: no thread, up to `SEND_SECONDS`."""
    key = f"{settings.langfuse_public_key}:{settings.langfuse_secret_key}"
    exporter = OTLPSpanExporter(
        endpoint=f"{settings.langfuse_url}/api/public/otel/v1/traces",
        headers={
            "Authorization": f"Basic {base64.b64encode(key.encode()).decode()}",
            "x-langfuse-sdk-name": "python",
            "x-langfuse-sdk-version": langfuse_version,
            "x-langfuse-public-key": settings.langfuse_public_key or "",
            "x-langfuse-ingestion-version": "4",
        },
        timeout=SEND_SECONDS,
    )
    provider = TracerProvider(id_generator=PinnedIds(), resource=resource(), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    root = begin_root(tracer_of(provider, settings), run, run.attempt, start=run.started_at)
    finish_root(root, status=status, said=said)
    provider.shutdown()


def trace_id_of(run: Run) -> str:
    """The run's own id is a valid trace id: the API knows it before a worker does."""
    return run.trace_id or run.run_id


def tags_of(run: Run, attempt: int) -> list[str]:
    """What Langfuse can filter traces by."""
    return [f"agent:{run.agent}", f"attempt:{attempt}"]


def level_of(status: RunState) -> str:
    """Langfuse's level of a root that ended so."""
    return _LEVELS.get(status, "ERROR")


def tracer_of(provider: TracerProvider, settings: Settings) -> Tracer:
    """A tracer by the SDK's own name and attribute: it exports only what it takes for its own."""
    key = settings.langfuse_public_key or ""
    return provider.get_tracer("langfuse-sdk", langfuse_version, attributes={"public_key": key})


def resource() -> Resource:
    """The environment and the release, as the SDK reads them for a provider of its own making."""
    names = {Attribute.ENVIRONMENT: "LANGFUSE_TRACING_ENVIRONMENT", Attribute.RELEASE: "LANGFUSE_RELEASE"}
    given = {attribute: os.environ.get(name, "") for attribute, name in names.items()}
    return Resource.create(
        {"service.name": "tailrace", **{name: text for name, text in given.items() if text}}
    )
