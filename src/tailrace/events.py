"""An event: one thing an agent did, as one document in MongoDB, one SSE frame and one JSON object."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal, get_args

import msgspec

from tailrace.documents import converted
from tailrace.errors import CursorError

__all__ = [
    "CHANNELS",
    "EVENT_TYPES",
    "SESSION_ID",
    "Draft",
    "Event",
    "EventType",
    "event_id",
    "seq_of",
]

EventType = Literal[
    "run_queued",
    "agent_start",
    "agent_end",
    "attempt_superseded",
    "message_start",
    "message_complete",
    "message_delta",
    "reasoning_delta",
    "tool_start",
    "tool_args_delta",
    "tool_progress",
    "tool_end",
    "progress",
    "file_change",
    "custom",
    "input_requested",
    "input_responded",
    "run_error",
    "finish",
]

EVENT_TYPES: tuple[str, ...] = get_args(EventType)

# The SSE `event:` name of each type. The allow-list is the defence: a name never comes from an agent's data.
CHANNELS: Mapping[str, str] = {
    "run_queued": "status",
    "agent_start": "status",
    "agent_end": "status",
    "attempt_superseded": "status",
    "message_start": "message",
    "message_complete": "message",
    "message_delta": "delta",
    "reasoning_delta": "reasoning",
    "tool_start": "tool",
    "tool_args_delta": "tool",
    "tool_progress": "tool",
    "tool_end": "tool",
    "progress": "progress",
    "file_change": "file_change",
    "custom": "custom",
    "input_requested": "input",
    "input_responded": "input",
    "run_error": "run_error",
    "finish": "finish",
}

SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)

# Seven digits of seq a second for a thousand years; a longer number in a cursor is noise, not a position.
_EVENT_ID = re.compile(r"([A-Za-z0-9_-]{1,64}):([1-9][0-9]{0,17})", re.ASCII)


class Draft(msgspec.Struct, frozen=True, kw_only=True):
    """What happened, before the log has given it a place.

    `data` holds the fields of its type. They stand at the top level of the frame's JSON, so a key of `data`
    must not be one of the envelope's; what an agent or a tool reports freely goes under `value`.
    """

    event_type: EventType
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    message_id: str | None = None  # the message it belongs to
    parent_ids: tuple[str, ...] = ()  # LangChain's run ancestry, outermost first
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    trace_id: str | None = None  # the Langfuse trace of the run
    observation_id: str | None = None  # the Langfuse span it came from
    emitted_at: float | None = None  # Unix seconds; where it waited for its insert; not on the wire


class Event(Draft, frozen=True, kw_only=True):
    """A draft with its place in a session's log."""

    event_id: str  # `<session_id>:<seq>`; `_id` in MongoDB, `id:` in SSE
    session_id: str
    run_id: str
    attempt: int  # counts from 1; grows when a lost run is tried again
    seq: int  # 1, 2, 3 … within the session, without holes; the only order there is
    timestamp: float  # Unix seconds, never decreasing within a session
    expires_at: datetime | None = None  # when the TTL index may delete it; not on the wire

    @classmethod
    def from_document(cls, document: Mapping[str, Any]) -> Event:
        """The event stored as `document`; unknown fields are ignored. Raises `DocumentDamaged`."""
        return converted({**document, "event_id": document["_id"]}, cls)

    def to_document(self) -> dict[str, Any]:
        """The MongoDB document, in the field order of the wire."""
        head = self._head()
        waited = {} if self.emitted_at is None else {"emitted_at": self.emitted_at}
        return {
            "_id": head.pop("event_id"),
            **head,
            "data": self.data,
            **waited,
            "expires_at": self.expires_at,
        }

    def to_json(self) -> bytes:
        """The frame's JSON: one line, and the same bytes whoever encodes it, live, replayed or archived."""
        return _encode({**self._head(), **self.data})

    def _head(self) -> dict[str, Any]:
        head: dict[str, Any] = {
            "event_id": self.event_id,
            "session_id": self.session_id,
            "run_id": self.run_id,
            "attempt": self.attempt,
            "seq": self.seq,
            "timestamp": self.timestamp,
            "event_type": self.event_type,
        }
        for name in _OPTIONAL:
            value = getattr(self, name)
            if value:
                head[name] = value
        return head


_OPTIONAL = ("message_id", "parent_ids", "tags", "metadata", "trace_id", "observation_id")


def _plain(value: Any) -> int:
    """BSON's integers of more than 32 bits are read as a subclass of `int`, which msgspec refuses."""
    if isinstance(value, int):
        return int(value)
    raise NotImplementedError


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def event_id(session_id: str, seq: int) -> str:
    """The id of the event at `seq`: derived, so that a repeated write of it can only collide with itself."""
    return f"{session_id}:{seq}"


def seq_of(cursor: str, session_id: str) -> int:
    """The `seq` that an event id points at.

    Raises `CursorError` with reason `malformed` or `other_session`.
    """
    match = _EVENT_ID.fullmatch(cursor)
    if match is None:
        raise CursorError("malformed", f"{cursor[:80]!r} is not an event id of the form SESSION:SEQ.")
    if match[1] != session_id:
        raise CursorError("other_session", f"{cursor!r} is an event of another session.")
    return int(match[2])
