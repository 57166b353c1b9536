"""Where a stream starts: the client's cursor, mapped onto the session's `seq`."""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.api.glance import Glance
from tailrace.errors import CursorError
from tailrace.eventlog import Bounds, EventLog
from tailrace.events import seq_of

__all__ = ["Start", "start_of"]


class Start(msgspec.Struct, frozen=True, kw_only=True):
    """A place in a session's log."""

    after: int  # the stream's first event is the next one
    last: int  # the log's end
    reset: dict[str, Any] | None = None  # why the cursor could not be used: the `stream.reset` frame's data


async def start_of(
    event_log: EventLog,
    session_id: str,
    seen: Glance,
    *,
    last_event_id: str | None,
    since_timestamp: float | None,
) -> Start:
    """The place that the client names; the event id counts before the timestamp, none is the beginning.

    An event id that names no place in this log (malformed, of another session, expired, beyond the end) gives
    the beginning of what there is, with a `reset` that says so: never a silent replay.
    """
    bounds = seen.bounds
    if last_event_id is not None:
        try:
            return Start(after=_position(last_event_id, session_id, bounds), last=bounds.last)
        except CursorError as error:
            reset = {"reason": error.reason, "detail": str(error), "from_seq": bounds.first}
            return Start(after=bounds.first - 1, last=bounds.last, reset=reset)
    if since_timestamp is not None and _is_over(since_timestamp, seen):
        return Start(after=bounds.last, last=bounds.last)
    if since_timestamp is not None:
        seq = await event_log.seq_at(session_id, since_timestamp)
        return Start(after=max(seq, bounds.first) - 1, last=max(bounds.last, seq - 1))
    return Start(after=bounds.first - 1, last=bounds.last)


def _is_over(timestamp: float, seen: Glance) -> bool:
    """Whether every event is known to be older: for a reader who wants what comes from now on."""
    return not seen.bounds.last or (seen.newest_at is not None and timestamp > seen.newest_at)


def _position(last_event_id: str, session_id: str, bounds: Bounds) -> int:
    seq = seq_of(last_event_id, session_id)
    if seq > bounds.last:
        raise CursorError("unknown", f"The session's log ends at {bounds.last}, before {seq}.")
    if seq + 1 < bounds.first:
        raise CursorError("expired", f"Events up to {bounds.first - 1} have expired.")
    return seq
