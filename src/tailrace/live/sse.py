"""Server-sent events as bytes (WHATWG HTML, section 9.2): frames of events, control frames, comments."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

import msgspec

from tailrace.events import CHANNELS, Event
from tailrace.metrics import NOTICES

__all__ = ["KEEP_ALIVE", "Frame", "control", "frame", "notice", "retry"]

KEEP_ALIVE = b":\n\n"
RETRY_MS = 3_000  # how long a cut-off EventSource waits
RETRY_JITTER_MS = 1_000  # so that a restarted server is not met by all its readers at once


class Frame(msgspec.Struct, frozen=True, gc=False):
    """An event, encoded once for all its readers."""

    seq: int
    run_id: str
    event_type: str
    data: bytes  # the whole frame, with its empty line
    timestamp: float = 0.0  # Unix seconds: the event's
    emitted_at: float = 0.0  # Unix seconds: when the agent gave it, if it had to wait


def frame(event: Event) -> Frame:
    """The SSE frame of `event`. JSON escapes every line break, so its data is always one line."""
    data = b"id: %b\nevent: %b\ndata: %b\n\n" % (
        event.event_id.encode(),
        CHANNELS[event.event_type].encode(),
        event.to_json(),
    )
    emitted_at = event.emitted_at or event.timestamp
    return Frame(event.seq, event.run_id, event.event_type, data, event.timestamp, emitted_at)


def control(name: str, data: Mapping[str, Any]) -> bytes:
    """A frame that is no event: it has no `id:`, so it moves no reader's cursor."""
    return b"event: %b\ndata: %b\n\n" % (name.encode(), msgspec.json.encode(data))


def notice(name: str, data: Mapping[str, Any]) -> bytes:
    """A control frame that tells of the stream itself; counted by its name and its `reason`."""
    NOTICES.add(name.removeprefix("stream."), str(data.get("reason", "")))
    return control(name, data)


def retry() -> bytes:
    """The reconnection time, different for each connection."""
    return b"retry: %d\n\n" % (RETRY_MS + random.randint(-RETRY_JITTER_MS, RETRY_JITTER_MS))
