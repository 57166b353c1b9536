"""Metrics: what this process has counted, and the names under which Prometheus sees it.

Counting is an addition to a plain number, without a lock: everything is counted on the thread of the event
loop. What is true only at a moment, such as the open streams, is read when somebody asks, in `api.metrics`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

__all__ = [
    "API",
    "GAUGES",
    "WORKER",
    "Counter",
    "Gauge",
    "Histogram",
    "Metric",
    "absorb",
    "drained",
    "settle",
]

# Seconds. From what the loopback takes to what a person gives up on.
_SOON = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_LONG = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048)


class Counter:
    """A number for each combination of labels, which only grows."""

    __slots__ = ("help", "known", "labels", "name", "values")

    def __init__(
        self, name: str, help: str, labels: tuple[str, ...] = (), known: Iterable[tuple[str, ...]] = ()
    ) -> None:
        self.name = name  # ends in `_total`
        self.help = help
        self.labels = labels
        # There from the beginning: Prometheus sees no increase in a series that begins with its first count.
        self.known = tuple(known) if labels else ((),)
        self.clear()

    def add(self, *labels: str, by: float = 1) -> None:
        """Count `by` more."""
        self.values[labels] = self.values.get(labels, 0) + by

    def more(self, by: int) -> None:
        """Count `by` more where there are no labels: for what is counted with every chunk."""
        self.values[()] += by

    def clear(self) -> None:
        """Begin at zero."""
        self.values: dict[tuple[str, ...], float] = dict.fromkeys(self.known, 0)


class Histogram:
    """How many observations lie within each bound, and their sum."""

    __slots__ = ("bounds", "counts", "help", "name", "sum")

    def __init__(self, name: str, help: str, bounds: Sequence[float]) -> None:
        self.name = name
        self.help = help
        self.bounds = bounds
        self.clear()

    def observe(self, value: float) -> None:
        """Note one value; a negative one, which only clocks that differ give, counts as 0."""
        if value < 0:
            value = 0.0
        self.counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def clear(self) -> None:
        """Begin at zero."""
        self.counts = [0] * (len(self.bounds) + 1)
        self.sum = 0.0


class Gauge(msgspec.Struct, frozen=True):
    """The name of what is looked at when somebody asks."""

    name: str
    help: str
    label: str | None = None


Metric = Counter | Histogram


def _by(label: str, *values: str) -> dict[str, Any]:
    return {"labels": (label,), "known": [(value,) for value in values]}


_NOTICES = (
    ("lagged", ""),
    *(("reset", reason) for reason in ("malformed", "other_session", "unknown", "expired", "hole")),
    *(("rotate", reason) for reason in ("draining", "error")),
    *(("expired", reason) for reason in ("token_expired", "revoked")),
)

STREAMS_OPENED = Counter("tailrace_streams_opened_total", "Streams that began.")
SENT_EVENTS = Counter("tailrace_sent_events_total", "Events handed to readers, once for each reader.")
SENT_BYTES = Counter("tailrace_sent_bytes_total", "Bytes handed to readers, frames of all kinds.")
DELIVERY = Histogram(
    "tailrace_delivery_seconds",
    "From an event's timestamp, just before its insert, to the socket of a live reader: the oldest event of "
    "each piece that is sent.",
    _SOON,
)
EMIT_DELIVERY = Histogram(
    "tailrace_emit_delivery_seconds",
    "From when the agent gave the event to the socket of a live reader: with the wait for earlier inserts.",
    _SOON,
)
TAIL_OPENED = Counter("tailrace_tail_opened_total", "Change streams opened, one for each new filter.")
TAIL_BROKEN = Counter("tailrace_tail_broken_total", "Change streams that could not go on.")
HOLES = Counter(
    "tailrace_holes_total",
    "Holes in the order of events, by where they were found: what the change stream gave, a frame about to "
    "be sent, a page of history.",
    **_by("found", "channel", "frame", "history"),
)
HOLES_REPAIRED = Counter("tailrace_holes_repaired_total", "Readers that got over a hole with every event.")
HOLES_SKIPPED = Counter(
    "tailrace_holes_skipped_total", "Readers that were told of events which are not in the log."
)
NOTICES = Counter(
    "tailrace_stream_notices_total",
    "Frames that are no events: stream.lagged, .reset, .rotate and .expired, by reason.",
    ("frame", "reason"),
    _NOTICES,
)
PROBLEMS = Counter(
    "tailrace_problems_total",
    "Requests answered with a problem document, by HTTP status.",
    **_by("status", "400", "401", "404", "408", "409", "410", "413", "415", "422", "429", "500", "503"),
)
LIMITS_REFUSED = Counter(
    "tailrace_limits_refused_total",
    "Requests refused because the user has as much as one user may, by limit.",
    **_by("limit", "runs-per-minute", "concurrent-runs", "concurrent-streams"),
)

CANCELS = Counter("tailrace_cancels_total", "Active runs that somebody, or a reader's leaving, asked to end.")
RUNS_FINISHED = Counter(
    "tailrace_runs_finished_total",
    "Runs whose finish was written, by its status.",
    **_by("status", "success", "error", "cancelled", "timeout", "lost"),
)
RUN_SECONDS = Histogram(
    "tailrace_run_duration_seconds", "From the start of a run's last attempt to its finish.", _LONG
)
RUNS_LOST = Counter(
    "tailrace_runs_lost_total",
    "Attempts whose worker died or fell silent, by what became of the run.",
    **_by("outcome", "retried", "cancelled", "timeout", "lost"),
)

APPEND_SECONDS = Histogram(
    "tailrace_append_seconds", "How long it took until a majority had a batch of events.", _SOON
)
APPEND_EVENTS = Histogram("tailrace_append_events", "Events in a batch.", _SIZES)
QUEUE_SECONDS = Histogram(
    "tailrace_queue_wait_seconds",
    "From a job's place in the queue to its process.",
    (*_SOON, 30.0, 60.0, 600.0),
)
FIRST_EVENT_SECONDS = Histogram(
    "tailrace_run_first_event_seconds",
    "From the request to the first event that the agent gave, all waiting included; first attempts only.",
    (*_SOON, 30.0, 60.0),
)
CANCEL_SECONDS = Histogram(
    "tailrace_cancel_seconds", "From when a running run was told to end until its finish was written.", _SOON
)
LEASES_LOST = Counter(
    "tailrace_leases_lost_total", "Runs that a living worker found taken from it, or ended, behind its back."
)

STREAMS = Gauge(
    "tailrace_streams",
    "Open streams, by what feeds them: their history, the channel, or history again for being too slow.",
    "state",
)
SESSIONS = Gauge("tailrace_sessions", "Sessions that have a reader here.")
BUFFERED_BYTES = Gauge("tailrace_buffered_bytes", "Frames kept for live readers, all sessions together.")
TAIL_UP = Gauge(
    "tailrace_tail_up", "1 while a change stream is open and answers and the server does not drain."
)
TAIL_SILENCE = Gauge(
    "tailrace_tail_silence_seconds", "Since the change stream answered. It does so every second."
)
TAIL_LAG = Gauge(
    "tailrace_tail_lag_seconds",
    "How old the newest event was when the change stream returned it, to the second; 0 if it had no more.",
)
RUNS = Gauge("tailrace_runs", "Unfinished runs of the whole deployment, by state.", "state")
ARCHIVE_AGE = Gauge(
    "tailrace_archive_age_seconds",
    "Since a pass of `tailrace archive` began that left nothing behind; infinite before the first.",
)
QUEUE_JOBS = Gauge("tailrace_queue_jobs", "Jobs that wait in the queue of the whole deployment.")
QUEUE_WORKERS = Gauge("tailrace_queue_workers", "Workers that serve the queue of the whole deployment.")

# What the API looks at when it is asked.
GAUGES = (
    STREAMS,
    SESSIONS,
    BUFFERED_BYTES,
    TAIL_UP,
    TAIL_SILENCE,
    TAIL_LAG,
    RUNS,
    ARCHIVE_AGE,
    QUEUE_JOBS,
    QUEUE_WORKERS,
)

_BOTH: tuple[Metric, ...] = (RUNS_FINISHED, RUNS_LOST)

# What the API counts.
API: tuple[Metric, ...] = (
    STREAMS_OPENED,
    SENT_EVENTS,
    SENT_BYTES,
    DELIVERY,
    EMIT_DELIVERY,
    TAIL_OPENED,
    TAIL_BROKEN,
    HOLES,
    HOLES_REPAIRED,
    HOLES_SKIPPED,
    NOTICES,
    PROBLEMS,
    LIMITS_REFUSED,
    CANCELS,
    *_BOTH,
)

# What the worker's processes count, each run in its own; one process gathers and shows it.
WORKER: tuple[Metric, ...] = (
    APPEND_SECONDS,
    APPEND_EVENTS,
    QUEUE_SECONDS,
    FIRST_EVENT_SECONDS,
    CANCEL_SECONDS,
    LEASES_LOST,
    RUN_SECONDS,
    *_BOTH,
)


def drained(metrics: Sequence[Metric] = WORKER) -> list[Any]:
    """What was counted since `settle`, to be sent to another process and given to `absorb` there."""
    return [
        [[list(labels), value] for labels, value in metric.values.items() if value]
        if isinstance(metric, Counter)
        else [metric.counts, metric.sum]
        for metric in metrics
    ]


def settle(metrics: Sequence[Metric] = WORKER) -> None:
    """Begin at zero: what was drained has arrived, or is another process's."""
    for metric in metrics:
        metric.clear()


def absorb(counted: Sequence[Any], metrics: Sequence[Metric] = WORKER) -> None:
    """Add what another process drained."""
    for metric, part in zip(metrics, counted, strict=True):
        if isinstance(metric, Counter):
            for labels, value in part:
                metric.add(*labels, by=value)
        else:
            counts, total = part
            metric.counts = [old + new for old, new in zip(metric.counts, counts, strict=True)]
            metric.sum += total
