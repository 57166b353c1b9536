"""The moments of a run as its client sees them, for the whole path and its floor."""

from __future__ import annotations

from ops.bench.client import Counted
from ops.bench.histogram import Histogram
from ops.bench.pace import TOKENS_PER_SECOND

__all__ = ["MODEL_MS", "STARTED", "beyond_pace", "first_token", "started"]

MODEL_MS = 1_000 / TOKENS_PER_SECOND  # before its first token
STARTED = '"event_type":"agent_start"'  # what the load generator marks
_MARK, _FIRST_EVENT, _END = 3, 4, 5  # places in its account of a stream


def started(counted: Counted) -> Histogram:
    """From each stream's request to its `agent_start`."""
    return Histogram.of(stream[_MARK] / 1e9 for stream in counted.streams)


def first_token(counted: Counted) -> Histogram:
    """From each stream's `agent_start` to its first token."""
    return Histogram.of((stream[_FIRST_EVENT] - stream[_MARK]) / 1e9 for stream in counted.streams)


def beyond_pace(counted: Counted, seconds: float) -> float:
    """By how many percent the longest run was longer than `seconds`, from its `agent_start` to its end."""
    return 100 * max((stream[_END] - stream[_MARK]) / 1e9 / seconds - 1 for stream in counted.streams)
