"""Langfuse tracing of a run. Nothing of Langfuse is imported while tracing is off."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import msgspec

from tailrace.runs import Run
from tailrace.settings import Settings

__all__ = ["Trace", "traced"]

log = logging.getLogger(__name__)

FLUSH_SECONDS = (
    5.0  # a horse ends with os._exit, so spans must be out by then; an unreachable host must not hold it
)


class Trace(msgspec.Struct, frozen=True, kw_only=True):
    """What a run needs to know of its trace; the default is no trace."""

    trace_id: str | None = None
    callbacks: tuple[Any, ...] = ()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)  # for LangChain's config
    observations: dict[str, str] = msgspec.field(default_factory=dict)  # see `observation_of`

    def observation_of(self, key: str) -> str | None:
        """The Langfuse observation of a tool call's id, or of a model's place in the graph."""
        return self.observations.get(key)


@contextmanager
def traced(settings: Settings, run: Run) -> Iterator[Trace]:
    """The trace of `run`; on exit its spans are sent, within `FLUSH_SECONDS`."""
    if not settings.tracing:
        yield Trace()
        return
    try:
        client, trace = _started(settings, run)
    except Exception:  # a run is worth more than its trace
        log.exception("tracing cannot start", extra={"action": "trace", "run_id": run.run_id})
        yield Trace()
        return
    try:
        yield trace
    finally:
        _flush(client)


def _started(settings: Settings, run: Run) -> tuple[Any, Trace]:
    from langfuse import Langfuse

    from tailrace_worker.langfuse_handler import RunHandler

    client = Langfuse(
        public_key=settings.langfuse_public_key,
        secret_key=settings.langfuse_secret_key,
        base_url=settings.langfuse_url,
    )
    # A run's id is a valid trace id, so that the API knows the trace before a worker does.
    trace_id = run.trace_id or run.run_id
    handler = RunHandler(settings.langfuse_public_key, trace_id)
    metadata = {
        "langfuse_user_id": run.user,
        "langfuse_session_id": run.session_id,
        "langfuse_tags": [f"agent:{run.agent}"],
        "tailrace_run_id": run.run_id,
    }
    return client, Trace(
        trace_id=trace_id, callbacks=(handler,), metadata=metadata, observations=handler.observations
    )


def _flush(client: Any) -> None:
    """In a thread that the process need not outlive: the exporter retries an unreachable host for long."""
    flushing = threading.Thread(target=client.flush, name="langfuse-flush", daemon=True)
    flushing.start()
    flushing.join(FLUSH_SECONDS)
    if flushing.is_alive():
        log.warning("Langfuse does not answer; spans of the run may be lost", extra={"action": "flush"})
