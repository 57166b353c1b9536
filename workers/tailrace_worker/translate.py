"""Turns what a LangChain agent streams into event drafts, and into the messages to keep. Does no I/O.

`tool_start` comes from the model node's update and `tool_end` from the tool's message, which arrive in the
stream's own order. A callback would know the moments to the millisecond, but runs beside the stream's queue:
its `tool_start` could overtake the text that the model said before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from tailrace.events import Draft, EventType
from tailrace.messages import Message
from tailrace_worker.ancestry import Ancestry
from tailrace_worker.assistant import Assistant, Call, Output, Said, said_by
from tailrace_worker.envelope import Envelope

__all__ = ["Translator"]

Key: TypeAlias = UUID | str  # the run of the model that says a message, else LangChain's id of the message

# A model's metadata where LangChain's middleware asks it for itself: to sum up, to choose tools.
_INTERNAL = ("lc_internal_call", "lc_source")


class Translator:
    """One run's stream. `translate` and `close` give its drafts in order.

    Before each `message_complete` that belongs to the conversation comes the `Message` to keep, whose
    `timestamp` and `parent_id` the caller sets. `ancestry` hears the agent's callbacks.
    """

    def __init__(
        self,
        envelope: Envelope,
        *,
        ancestry: Ancestry | None = None,
        known_ids: frozenset[str] = frozenset(),
    ) -> None:
        self._envelope = envelope
        self._ancestry = ancestry or Ancestry()
        self._open: dict[Key, Assistant] = {}  # in the order of their first chunk
        self._done: set[Key] = set(known_ids)  # messages that are told, or were there before the run
        self._said: dict[str, Said] = {}  # what was completed last, by the places around and of it
        self._calls: dict[str, Call] = {}  # by tool call id; until its end
        self._ended: set[str] = set()  # tool call ids
        self._started: dict[str, str] = {}  # tool call id -> tool's name; from its start to its end
        self._unnamed_told = False  # the message completed last had no id; the graph names it in its update
        self.usage: dict[str, Any] = {}  # the tokens of all models of the run so far
        self.answer = ""  # the text of the assistant's last message

    def translate(self, mode: str, payload: Any) -> Iterator[Output]:
        """The outputs of one item of `astream(stream_mode=["messages", "updates", "custom"])`."""
        if mode == "messages":
            message, metadata = payload
            yield from self._message(message, metadata or {})
        elif mode == "updates":
            yield from self._updates(payload)
        elif mode == "custom":
            yield self._custom(payload)

    def close(self, *, status: str = "complete") -> Iterator[Output]:
        """The outputs that end what is still open: as errors, or partial messages with `status`."""
        for key in list(self._open):
            yield from self._complete(key, status="error" if status == "complete" else status)
        for call_id in list(self._started):
            text = (
                "The run ended before this tool did." if status == "complete" else f"The run ended: {status}."
            )
            yield self._tool_end(call_id, self._started[call_id], text, "error")

    def _message(self, message: BaseMessage, metadata: Mapping[str, Any]) -> Iterator[Output]:
        if isinstance(message, ToolMessage):
            yield from self._tool_message(message)
        elif isinstance(message, AIMessage):
            yield from self._assistant(message, metadata)

    def _assistant(self, message: AIMessage, metadata: Mapping[str, Any]) -> Iterator[Output]:
        key = self._key(message)
        assistant = self._open.get(key)
        if assistant is None:
            if not self._is_new(key, message, metadata):
                return
            yield from self._broken_off()
            assistant = self._open[key] = self._opened(message, metadata)
        yield from assistant.add(message)
        if Assistant.is_last(message):
            yield from self._complete(key)

    def _is_new(self, key: Key, message: AIMessage, metadata: Mapping[str, Any]) -> bool:
        """Whether a message begins that is to be told."""
        if key in self._done:
            return False
        if any(metadata.get(name) for name in _INTERNAL):
            self._count(message.usage_metadata)
            return False
        if self._is_copy(message, metadata):
            self._done.add(key)
            return False
        return True

    def _key(self, message: AIMessage) -> Key:
        """What the chunks of one message have in common; some models name only the first, and some none."""
        named = self._ancestry.model_of(message.id) or message.id
        return named or next(reversed(self._open), "")

    def _is_copy(self, message: AIMessage, metadata: Mapping[str, Any]) -> bool:
        """Whether a node returned what its model has just said as another message."""
        if self._ancestry.model_of(message.id) or not Assistant.is_last(message):
            return False
        return self._said.get(metadata.get("langgraph_checkpoint_ns", "")) == said_by(message)

    def _opened(self, message: AIMessage, metadata: Mapping[str, Any]) -> Assistant:
        # What a model says in a tool is the tool's own: shown, but no turn of the conversation.
        inner = self._ancestry.in_tool(message.id, metadata.get("langgraph_checkpoint_ns"))
        return Assistant(self._envelope.for_message(metadata, langchain_id=message.id), inner=inner)

    def _broken_off(self) -> Iterator[Output]:
        """The ends of messages whose model failed: what comes now may be another try."""
        for key in [key for key in self._open if key in self._ancestry.broken]:
            yield from self._complete(key, status="error")

    def _complete(self, key: Key, *, status: str = "complete") -> Iterator[Output]:
        assistant = self._open.pop(key)
        self._unnamed_told = not key
        if key:
            self._done.add(key)
        for output in assistant.complete(status):
            if isinstance(output, Message) and status != "error":
                self.answer = output.content
            yield output
        self._count(assistant.usage)
        self._calls |= assistant.calls
        if assistant.place and status == "complete":
            around = assistant.place.split("|")
            self._said |= {"|".join(around[:depth]): assistant.said for depth in range(1, len(around) + 1)}

    def _updates(self, payload: Any) -> Iterator[Output]:
        for update in payload.values() if isinstance(payload, Mapping) else ():
            for message in _messages_in(update):
                yield from self._updated(message)

    def _updated(self, message: BaseMessage) -> Iterator[Output]:
        if isinstance(message, ToolMessage):
            yield from self._tool_message(message)
        elif isinstance(message, AIMessage):
            yield from self._finished_turn(message)

    def _finished_turn(self, message: AIMessage) -> Iterator[Output]:
        """The model's turn as the graph keeps it: what was not streamed is told now, then its tools start."""
        key = self._key(message)
        if key not in self._open and "" in self._open:
            key = ""
        if key in self._open:
            yield from self._complete(key)
        elif not self._unnamed_told:
            yield from self._message(message, {})
        self._unnamed_told = False
        for call in message.tool_calls:
            if call["id"] in self._calls:
                yield from self._tool_start(call["id"], call["name"], call["args"])
        for broken in message.invalid_tool_calls:
            if broken.get("id") in self._calls:
                yield from self._broken_call(broken["id"] or "", broken["name"] or "", broken["args"])

    def _broken_call(self, call_id: str, name: str, args: Any) -> Iterator[Output]:
        yield from self._tool_start(call_id, name, args)
        yield self._tool_end(
            call_id, name, "The model's arguments for this tool are not valid JSON.", "error"
        )

    def _tool_start(self, call_id: str, name: str, args: Any) -> Iterator[Output]:
        if call_id not in self._started:
            self._started[call_id] = name
            data = {"tool_call_id": call_id, "name": name, "input": args}
            yield self._tool_draft("tool_start", data)

    def _tool_message(self, message: ToolMessage) -> Iterator[Output]:
        call_id, call = message.tool_call_id, self._calls.get(message.tool_call_id)
        # A result without an id comes twice, by messages and by updates; one of a graph in a graph may come
        # again under another id.
        if message.id in self._done or (call is None and (not message.id or call_id in self._ended)):
            return
        if message.id:
            self._done.add(message.id)
        name = message.name or (call.name if call else "")
        yield from self._tool_start(call_id, name, call.args if call else None)
        output = message.content if isinstance(message.content, str) else list(message.content)
        yield self._tool_end(call_id, name, output, message.status)
        yield from self._result(message, name, inner=call is not None and call.inner)

    def _result(self, message: ToolMessage, name: str, *, inner: bool) -> Iterator[Output]:
        parts = message.content if isinstance(message.content, list) else []
        kept = self._envelope.tool_message(
            call_id=message.tool_call_id,
            content=message.text,
            content_parts=[
                part if isinstance(part, dict) else {"type": "text", "text": part} for part in parts
            ],
            name=name,
            status="error" if message.status == "error" else "complete",
        )
        if not inner:
            yield kept
        yield self._envelope.completed(kept, call_id=message.tool_call_id)

    def _tool_end(self, call_id: str, name: str, output: Any, status: str) -> Draft:
        self._started.pop(call_id, None)
        data = {"tool_call_id": call_id, "name": name, "output": output, "status": status}
        draft = self._tool_draft("tool_end", data)
        self._ended.add(call_id)
        self._calls.pop(call_id, None)
        return draft

    def _tool_draft(self, event_type: EventType, data: dict[str, Any]) -> Draft:
        call = self._calls.get(data["tool_call_id"])
        return self._envelope.tool_draft(
            event_type, data, call_id=data["tool_call_id"], message_id=call.asked_by if call else None
        )

    def _custom(self, value: Any) -> Draft:
        kind = value.get("type") if isinstance(value, Mapping) else None
        if kind == "tool_progress":
            # LangGraph does not say who reports; where several tools run, only they can.
            only = next(iter(self._started)) if len(self._started) == 1 else ""
            call_id = str(value.get("tool_call_id") or only)
            data = {"tool_call_id": call_id, "progress": _reported(value, "progress", without="tool_call_id")}
            return self._tool_draft("tool_progress", data)
        if kind in ("progress", "file_change"):
            return self._envelope.draft(kind, {"value": _reported(value, "value")})
        return self._envelope.draft("custom", {"value": value})

    def _count(self, usage: Mapping[str, Any] | None) -> None:
        for name in ("input_tokens", "output_tokens", "total_tokens"):
            if usage and name in usage:
                self.usage[name] = self.usage.get(name, 0) + usage[name]


def _reported(value: Mapping[str, Any], key: str, *, without: str = "type") -> Any:
    """What a tool reported: the value under `key`, or all it said."""
    return value[key] if key in value else {k: v for k, v in value.items() if k not in ("type", without)}


def _messages_in(update: Any) -> list[BaseMessage]:
    """The messages of a node's update; a node may return a list of updates, and an update may overwrite."""
    if isinstance(update, (list, tuple)):
        return [message for item in update for message in _messages_in(item)]
    found = update.get("messages", ()) if isinstance(update, Mapping) else ()
    found = getattr(found, "value", found)  # langgraph.types.Overwrite
    items = found if isinstance(found, (list, tuple)) else [found]
    return [item for item in items if isinstance(item, BaseMessage)]
