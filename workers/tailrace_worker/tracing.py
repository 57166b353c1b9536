"""The trace of a run. This one is of a run that is not traced: nothing of Langfuse is imported then."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from tailrace.ending import Outcome
from tailrace.events import Event
from tailrace.runs import Run, RunState
from tailrace.settings import Settings

__all__ = ["Trace", "tell_lost", "traced"]

log = logging.getLogger(__name__)


class Trace:
    """What a run needs of its trace, and what it tells it. Nothing here raises."""

    trace_id: str | None = None
    root_id: str | None = None  # the observation of this attempt
    callbacks: tuple[Any, ...] = ()  # for LangChain's config

    def generation_of(self, *keys: str | None) -> str | None:
        """The observation of the model's call that has one of these keys: a message's id, a graph's place."""
        return None

    def tool_of(self, call_id: str) -> str | None:
        """The observation of a tool's call, also before it begins."""
        return None

    def begins(self, seq: int) -> None:
        """The attempt's first event is at `seq`."""

    def stored(self, events: Sequence[Event]) -> None:
        """A majority has `events`."""

    def ended(self, outcome: Outcome, *, answer: str = "", last_seq: int | None = None) -> None:
        """The attempt ended, with its `finish` at `last_seq`.

        Without this call the root stays open: the next attempt tells of this one.
        """


@contextmanager
def traced(settings: Settings, run: Run, *, lost_since: float | None = None) -> Iterator[Trace]:
    """The trace of this attempt of `run`; on exit its spans are sent, within a bounded time.

    `lost_since` is when the attempt before began (Unix seconds), if there was one: it is told of too.
    """
    with ExitStack() as stack:
        trace = Trace()
        if settings.tracing:
            try:
                from tailrace_worker.langfuse_trace import langfuse_trace

                trace = stack.enter_context(langfuse_trace(settings, run, lost_since=lost_since))
            except Exception:  # a run is worth more than its trace
                log.exception("tracing cannot start", extra={"action": "trace", "run_id": run.run_id})
        yield trace


def tell_lost(settings: Settings, run: Run, *, status: RunState, said: str) -> None:
    """Send the root of an attempt that died and that no other one follows; takes up to two seconds.

    For the parent: no thread is left behind, so that it may fork again.
    """
    if settings.tracing and run.started_at is not None:
        try:
            from tailrace_worker.langfuse_root import send_lost

            send_lost(settings, run, status=status, said=said)
        except Exception:
            log.exception("a lost run is not traced", extra={"action": "trace", "run_id": run.run_id})
