"""The events as OpenAPI describes them: a Struct for each event type, told apart by `event_type`.

The log stores and sends any `Event`; nothing is encoded through these. They say what its `data` holds by
type, and a test decodes real events with them.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from tailrace.runs import FinishStatus

__all__ = ["ControlFrame", "EventFrame", "EventPage", "WireEvent"]


class _Wire(msgspec.Struct, frozen=True, kw_only=True, tag_field="event_type"):
    """The fields of every event."""

    event_id: str  # `<session_id>:<seq>`
    session_id: str
    run_id: str
    attempt: int
    seq: int
    timestamp: float  # Unix seconds
    message_id: str | msgspec.UnsetType = msgspec.UNSET
    parent_ids: list[str] | msgspec.UnsetType = msgspec.UNSET
    tags: list[str] | msgspec.UnsetType = msgspec.UNSET
    metadata: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    trace_id: str | msgspec.UnsetType = msgspec.UNSET
    observation_id: str | msgspec.UnsetType = msgspec.UNSET


class RunQueuedEvent(_Wire, frozen=True, kw_only=True, tag="run_queued"):
    agent: str


class AgentStartEvent(_Wire, frozen=True, kw_only=True, tag="agent_start"):
    agent: str
    model: str


class AgentEndEvent(_Wire, frozen=True, kw_only=True, tag="agent_end"):
    status: str
    usage: dict[str, Any] | None = None


class AttemptSupersededEvent(_Wire, frozen=True, kw_only=True, tag="attempt_superseded"):
    from_seq: int  # from here
    to_seq: int  # to here, inclusive, the events no longer count


class MessageStartEvent(_Wire, frozen=True, kw_only=True, tag="message_start"):
    role: str
    name: str | None = None


class MessageCompleteEvent(_Wire, frozen=True, kw_only=True, tag="message_complete"):
    role: str
    content: str
    status: str
    content_parts: list[dict[str, Any]] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    name: str | None = None
    usage: dict[str, Any] | None = None


class MessageDeltaEvent(_Wire, frozen=True, kw_only=True, tag="message_delta"):
    delta: str
    content_type: Literal["text"]
    index: int
    offset: int  # Unicode code points of the message before this delta


class ReasoningDeltaEvent(_Wire, frozen=True, kw_only=True, tag="reasoning_delta"):
    delta: str
    offset: int


class ToolStartEvent(_Wire, frozen=True, kw_only=True, tag="tool_start"):
    tool_call_id: str
    name: str
    input: Any


class ToolArgsDeltaEvent(_Wire, frozen=True, kw_only=True, tag="tool_args_delta"):
    tool_call_id: str
    name: str
    delta: str


class ToolProgressEvent(_Wire, frozen=True, kw_only=True, tag="tool_progress"):
    tool_call_id: str
    progress: Any


class ToolEndEvent(_Wire, frozen=True, kw_only=True, tag="tool_end"):
    tool_call_id: str
    name: str
    output: Any
    status: Literal["success", "error"]


class ProgressEvent(_Wire, frozen=True, kw_only=True, tag="progress"):
    value: Any


class FileChangeEvent(_Wire, frozen=True, kw_only=True, tag="file_change"):
    value: Any


class CustomEvent(_Wire, frozen=True, kw_only=True, tag="custom"):
    value: Any


class InputRequestedEvent(_Wire, frozen=True, kw_only=True, tag="input_requested"):
    """Its fields come with the route that answers it."""


class InputRespondedEvent(_Wire, frozen=True, kw_only=True, tag="input_responded"):
    """Its fields come with the route that makes it."""


class RunErrorEvent(_Wire, frozen=True, kw_only=True, tag="run_error"):
    code: str
    message: str
    retryable: bool


class FinishEvent(_Wire, frozen=True, kw_only=True, tag="finish"):
    status: FinishStatus
    last_seq: int
    digest: str  # chains the run's frames before it: docs/reference/wire-protocol.md


WireEvent = (
    RunQueuedEvent
    | AgentStartEvent
    | AgentEndEvent
    | AttemptSupersededEvent
    | MessageStartEvent
    | MessageCompleteEvent
    | MessageDeltaEvent
    | ReasoningDeltaEvent
    | ToolStartEvent
    | ToolArgsDeltaEvent
    | ToolProgressEvent
    | ToolEndEvent
    | ProgressEvent
    | FileChangeEvent
    | CustomEvent
    | InputRequestedEvent
    | InputRespondedEvent
    | RunErrorEvent
    | FinishEvent
)


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """Events of one session, ascending."""

    events: list[WireEvent]
    next: str | None  # the event id to pass as `after`; null at the end


class EventFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame of a stream that is an event."""

    id: str  # the event's id, for `Last-Event-ID`
    event: Literal[
        "status", "message", "delta", "reasoning", "tool", "progress", "file_change", "custom", "input",
        "run_error", "finish",
    ]  # fmt: skip
    data: str  # the event's JSON


class ControlFrame(msgspec.Struct, frozen=True, kw_only=True):
    """A frame that is no event: it tells of the stream itself, and has no `id` of its own."""

    event: Literal["stream.ready", "stream.reset", "stream.lagged", "stream.rotate", "stream.expired"]
    data: str  # a JSON object
