"""What every draft and message of one run has in common: ids, trace, tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tailrace.carry import carry_data
from tailrace.events import Draft, EventType
from tailrace.messages import Message, Role
from tailrace.runs import Run

__all__ = ["Envelope"]


# They are many, and belong to a message or a tool call whose other events carry what is left out of them.
_DELTAS = ("message_delta", "reasoning_delta", "tool_args_delta")


class Envelope:
    """Makes the drafts and messages of one run, and numbers its messages: `<run_id>-<attempt>-<n>`."""

    def __init__(
        self,
        run: Run,
        *,
        trace_id: str | None = None,
        observation_of: Callable[[str], str | None] = lambda _: None,
        parents_of: Callable[[str], tuple[str, ...]] = lambda _: (),
    ) -> None:
        self._run = run
        self._trace_id = trace_id
        self._observation_of = observation_of  # a tool call's id, or a model's place in the graph
        self._parents_of = parents_of  # likewise
        self._count = 0

    def next_message_id(self) -> str:
        """A new message's id: unique everywhere, and the same when an attempt is replayed."""
        self._count += 1
        return f"{self._run.run_id}-{self._run.attempt}-{self._count}"

    def draft(
        self,
        event_type: EventType,
        data: dict[str, Any],
        *,
        message_id: str | None = None,
        call_id: str | None = None,
        tags: tuple[str, ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> Draft:
        """A draft of this run; `call_id` finds the observation of a tool or a model."""
        return Draft(
            event_type=event_type,
            data=data,
            message_id=message_id,
            parent_ids=self._parents_of(call_id) if call_id and event_type not in _DELTAS else (),
            tags=tags,
            metadata=metadata or {},
            trace_id=self._trace_id,
            observation_id=self._observation_of(call_id) if call_id else None,
        )

    def message(self, *, role: Role, message_id: str | None = None, **fields: Any) -> Message:
        """A message of this run, made so that MongoDB takes it; the caller sets its time and parent."""
        return Message(
            message_id=message_id or self.next_message_id(),
            session_id=self._run.session_id,
            run_id=self._run.run_id,
            timestamp=0.0,
            role=role,
            trace_id=self._trace_id,
            **carry_data(fields),
        )

    def completed(self, message: Message, *, call_id: str | None = None) -> Draft:
        """The `message_complete` of `message`."""
        data: dict[str, Any] = {"role": message.role, "content": message.content}
        for name in ("content_parts", "tool_calls", "tool_call_id", "name", "usage"):
            if value := getattr(message, name):
                data[name] = value
        data["status"] = message.status
        return self.draft("message_complete", data, message_id=message.message_id, call_id=call_id)

    def for_message(self, metadata: Mapping[str, Any]) -> MessageEnvelope:
        """The envelope of a new assistant message; `metadata` is LangGraph's, of which little is kept."""
        node = metadata.get("langgraph_node")
        return MessageEnvelope(
            run=self,
            message_id=self.next_message_id(),
            tags=tuple(str(tag) for tag in metadata.get("tags") or ()),
            metadata={"langgraph_node": node} if node else {},
            place=metadata.get("langgraph_checkpoint_ns"),
        )


class MessageEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope with one message's id."""

    run: Envelope
    message_id: str
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    place: str | None = None  # the model's, in the graph

    def draft(self, event_type: EventType, data: dict[str, Any]) -> Draft:
        """A draft that belongs to the message. Only its start carries tags and metadata: deltas are many."""
        first = event_type == "message_start"
        return self.run.draft(
            event_type,
            data,
            message_id=self.message_id,
            call_id=self.place,
            tags=self.tags if first else (),
            metadata=self.metadata if first else None,
        )
