"""What every draft and message of one run has in common: ids, trace, tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import msgspec

from tailrace.carry import MAX_MESSAGE_BYTES, carry_data
from tailrace.events import Draft, EventType
from tailrace.messages import Message, Role
from tailrace.runs import Run
from tailrace_worker.tracing import Trace

__all__ = ["Envelope"]


# They are many, and belong to a message or a tool call whose other events carry what is left out of them.
_DELTAS = ("message_delta", "reasoning_delta", "tool_args_delta")


class Envelope:
    """Makes the drafts and messages of one run, and numbers its messages: `<run_id>-<attempt>-<n>`."""

    def __init__(
        self,
        run: Run,
        trace: Trace,
        *,
        parents_of: Callable[[str], tuple[str, ...]] = lambda _: (),
    ) -> None:
        self._run = run
        self._trace = trace
        self._parents_of = parents_of  # of a tool call's id, or a model's place in the graph
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
        observation_id: str | None = None,
        tags: tuple[str, ...] = (),
        metadata: dict[str, Any] | None = None,
    ) -> Draft:
        """A draft of this run.

        `call_id`, a tool call's id or a model's place in the graph, finds the ancestry. Without an
        `observation_id` the event is the run's own.
        """
        return Draft(
            event_type=event_type,
            data=data,
            message_id=message_id,
            parent_ids=self._parents_of(call_id) if call_id and event_type not in _DELTAS else (),
            tags=tags,
            metadata=metadata or {},
            trace_id=self._trace.trace_id,
            observation_id=observation_id or self._trace.root_id,
        )

    def tool_draft(
        self, event_type: EventType, data: dict[str, Any], *, call_id: str, message_id: str | None
    ) -> Draft:
        """A draft of the tool that the call `call_id` runs; `message_id` is of the message that asked."""
        observation_id = self._trace.tool_of(call_id)
        return self.draft(
            event_type, data, message_id=message_id, call_id=call_id, observation_id=observation_id
        )

    def tool_message(self, *, call_id: str, **fields: Any) -> Message:
        """What the tool that the call `call_id` ran returned, as a message."""
        observation_id = self._trace.tool_of(call_id)
        return self.message(role="tool", tool_call_id=call_id, observation_id=observation_id, **fields)

    def message(
        self, *, role: Role, message_id: str | None = None, observation_id: str | None = None, **fields: Any
    ) -> Message:
        """A message of this run, made so that MongoDB takes it; the caller sets its time and parent."""
        return Message(
            message_id=message_id or self.next_message_id(),
            session_id=self._run.session_id,
            run_id=self._run.run_id,
            timestamp=0.0,
            role=role,
            trace_id=self._trace.trace_id,
            observation_id=observation_id or self._trace.root_id,
            **carry_data(fields, limit=MAX_MESSAGE_BYTES),
        )

    def completed(self, message: Message, *, call_id: str | None = None) -> Draft:
        """The `message_complete` of `message`."""
        return self.draft(
            "message_complete",
            message.told(),
            message_id=message.message_id,
            call_id=call_id,
            observation_id=message.observation_id,
        )

    def for_message(self, metadata: Mapping[str, Any], *, langchain_id: str | None) -> MessageEnvelope:
        """The envelope of a new assistant message; `metadata` is LangGraph's, of which little is kept.

        Its observation is looked up here, once, and not for each of its tokens.
        """
        node, place = metadata.get("langgraph_node"), metadata.get("langgraph_checkpoint_ns")
        return MessageEnvelope(
            run=self,
            message_id=self.next_message_id(),
            tags=tuple(str(tag) for tag in metadata.get("tags") or ()),
            metadata={"langgraph_node": node} if node else {},
            place=place,
            observation_id=self._trace.generation_of(langchain_id, place),
        )


class MessageEnvelope(msgspec.Struct, frozen=True, kw_only=True):
    """An envelope with one message's id."""

    run: Envelope
    message_id: str
    tags: tuple[str, ...] = ()
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)
    place: str | None = None  # the model's, in the graph
    observation_id: str | None = None  # the generation

    def draft(self, event_type: EventType, data: dict[str, Any]) -> Draft:
        """A draft that belongs to the message. Only its start carries tags and metadata: deltas are many."""
        first = event_type == "message_start"
        return self.run.draft(
            event_type,
            data,
            message_id=self.message_id,
            call_id=self.place,
            observation_id=self.observation_id,
            tags=self.tags if first else (),
            metadata=self.metadata if first else None,
        )
