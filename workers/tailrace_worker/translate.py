"""Turns what a LangChain agent streams into event drafts, and into the messages to keep. Does no I/O.

`tool_start` comes from the model node's update and `tool_end` from the tool's message, which arrive in the
stream's own order. A callback would know the moments to the millisecond, but runs beside the stream's queue:
its `tool_start` could overtake the text that the model said before it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, ToolMessage

from tailrace.events import Draft
from tailrace.messages import Message
from tailrace_worker.assistant import Assistant, Output
from tailrace_worker.envelope import Envelope

__all__ = ["Translator"]


class Translator:
    """One run's stream. `translate` and `close` give its drafts in order.

    Before each `message_complete` that belongs to the conversation comes the `Message` to keep, whose
    `timestamp` and `parent_id` the caller sets.
    """

    def __init__(self, envelope: Envelope, *, known_ids: frozenset[str] = frozenset()) -> None:
        self._envelope = envelope
        self._open: dict[str, Assistant] = {}  # by LangChain's message id, in the order of their first chunk
        self._done = set(known_ids)  # LangChain's ids of messages that are told, or were there before the run
        self._calls: dict[str, str] = {}  # tool call id -> id of the message that asked; until its end
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
        """The outputs that end what is still open: partial messages with `status`, and tools as errors."""
        for assistant in list(self._open.values()):
            yield from self._complete(assistant, status=status)
        for call_id in list(self._started):
            text = (
                "The run ended before this tool did." if status == "complete" else f"The run ended: {status}."
            )
            yield self._tool_end(call_id, self._started[call_id], text, "error")

    def _message(self, message: BaseMessage, metadata: Mapping[str, Any]) -> Iterator[Output]:
        if isinstance(message, ToolMessage):
            yield from self._tool_message(message)
        elif isinstance(message, AIMessage) and (message.id is None or message.id not in self._done):
            assistant = self._assistant(message, metadata)
            yield from assistant.add(message)
            if assistant.is_last(message):
                yield from self._complete(assistant)

    def _assistant(self, message: AIMessage, metadata: Mapping[str, Any]) -> Assistant:
        # Some models name only the first chunk of a message, and some none.
        key = message.id or next(reversed(self._open), "")
        if key not in self._open:
            # What a model says while a tool runs is the tool's own: shown, but no turn of the conversation.
            inner = bool(self._started)
            envelope = self._envelope.for_message(metadata, langchain_id=message.id)
            self._open[key] = Assistant(envelope, inner=inner)
        return self._open[key]

    def _complete(self, assistant: Assistant, *, status: str = "complete") -> Iterator[Output]:
        for key in [key for key, found in self._open.items() if found is assistant]:
            del self._open[key]
            self._done.add(key)
            self._unnamed_told = not key
        for output in assistant.complete(status):
            if isinstance(output, Message):
                self.answer = output.content
            yield output
        self._count(assistant.usage)
        for call in assistant.tool_calls:
            self._calls[call["id"]] = assistant.message_id

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
        assistant = self._open.get(message.id or "", self._open.get(""))
        if assistant is not None:
            yield from self._complete(assistant)
        elif message.id is None or message.id not in self._done:
            if not self._unnamed_told:
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
            yield self._envelope.tool_draft(
                "tool_start", data, call_id=call_id, message_id=self._calls.get(call_id)
            )

    def _tool_message(self, message: ToolMessage) -> Iterator[Output]:
        if message.id is not None:
            if message.id in self._done:
                return
            self._done.add(message.id)
        elif message.tool_call_id not in self._calls:
            return  # a result without an id comes twice, by messages and by updates
        for asking in [found for found in self._open.values() if not found.inner]:
            yield from self._complete(asking)
        call_id, name = message.tool_call_id, message.name or self._started.get(message.tool_call_id, "")
        yield from self._tool_start(call_id, name, None)
        output = message.content if isinstance(message.content, str) else list(message.content)
        yield self._tool_end(call_id, name, output, message.status)
        yield from self._kept(message, name)

    def _kept(self, message: ToolMessage, name: str) -> Iterator[Output]:
        parts = message.content if isinstance(message.content, list) else []
        kept = self._envelope.tool_message(
            call_id=message.tool_call_id,
            content=message.text,
            content_parts=[
                part if isinstance(part, dict) else {"type": "text", "text": part} for part in parts
            ],
            name=name,
        )
        yield kept
        yield self._envelope.completed(kept, call_id=message.tool_call_id)

    def _tool_end(self, call_id: str, name: str, output: Any, status: str) -> Draft:
        self._started.pop(call_id, None)
        asked_by = self._calls.pop(call_id, None)
        data = {"tool_call_id": call_id, "name": name, "output": output, "status": status}
        return self._envelope.tool_draft("tool_end", data, call_id=call_id, message_id=asked_by)

    def _custom(self, value: Any) -> Draft:
        kind = value.get("type") if isinstance(value, Mapping) else None
        if kind == "tool_progress":
            call_id = str(value.get("tool_call_id") or next(reversed(self._started), ""))
            data = {"tool_call_id": call_id, "progress": _reported(value, "progress", without="tool_call_id")}
            return self._envelope.tool_draft(
                "tool_progress", data, call_id=call_id, message_id=self._calls.get(call_id)
            )
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
