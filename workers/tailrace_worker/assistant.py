"""One assistant message while it streams: its text, reasoning and tool calls so far."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec
from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.messages.ai import add_ai_message_chunks

from tailrace.events import Draft
from tailrace.messages import Message
from tailrace_worker.envelope import MessageEnvelope

__all__ = ["Assistant", "Call", "Output", "Said", "said_by"]

Output: TypeAlias = Draft | Message
Said: TypeAlias = tuple[str, list[dict[str, Any]]]  # the text and the tool calls of a message


class Call(msgspec.Struct, frozen=True):
    """A tool call that a message asked for."""

    asked_by: str  # Tailrace's id of the message
    name: str
    args: Any
    inner: bool  # asked for inside another tool


class Assistant:
    """Takes the chunks of one message, or the whole of it, and gives the drafts that tell it.

    The deltas, joined, are the content of its `message_complete`; `offset` counts the message's characters
    (code points) before the delta, over all its blocks.
    """

    def __init__(self, envelope: MessageEnvelope, *, inner: bool = False) -> None:
        self._envelope = envelope
        self.inner = inner  # said inside a tool: told, but not kept in the conversation
        self._text: list[str] = []
        self._offset = 0
        self._reasoned = 0  # characters
        self._began = False
        self._blocks: dict[Any, int] = {}  # the provider's block index -> ours, 0, 1, 2 …
        self._open_calls: dict[Any, tuple[str, str]] = {}  # the provider's call index -> id, name
        self._call = ("", "")  # the one that began last
        self._chunks: list[AIMessageChunk] = []
        self._whole: AIMessage | None = None
        self.usage: dict[str, Any] | None = None
        self.tool_calls: list[dict[str, Any]] = []  # known once complete; arguments that are no JSON as text

    @property
    def place(self) -> str | None:
        """Where in the graph it is said."""
        return self._envelope.place

    @property
    def said(self) -> Said:
        """What it said, once complete."""
        return "".join(self._text), self.tool_calls

    @property
    def calls(self) -> dict[str, Call]:
        """The tool calls by their ids, once complete."""
        message_id = self._envelope.message_id
        return {
            call["id"]: Call(message_id, call["name"], call["args"], self.inner) for call in self.tool_calls
        }

    @staticmethod
    def is_last(message: AIMessage) -> bool:
        """Whether nothing follows `message`."""
        return not isinstance(message, AIMessageChunk) or message.chunk_position == "last"

    def add(self, message: AIMessage) -> Iterator[Output]:
        """The drafts of one chunk, or of a whole message from a model that does not stream."""
        if not self._began:
            self._began = True
            yield self._envelope.draft("message_start", {"role": "assistant"})
        if isinstance(message, AIMessageChunk):
            self._chunks.append(message)
            calls: list[Any] = list(message.tool_call_chunks)
        else:
            self._whole = message
            calls = [
                {**call, "args": json.dumps(call["args"], ensure_ascii=False, default=str), "index": None}
                for call in message.tool_calls
            ]
        yield from self._content(message)
        for call in calls:
            yield from self._args(call)

    def complete(self, status: str) -> Iterator[Output]:
        """The message to keep and its `message_complete`."""
        whole = self._whole or self._joined()
        self.usage = dict(whole.usage_metadata) if whole.usage_metadata else None
        if status == "complete":
            self.tool_calls = _calls_of(whole)
        kept = self._envelope.run.message(
            role="assistant",
            message_id=self._envelope.message_id,
            observation_id=self._envelope.observation_id,
            content="".join(self._text),
            content_parts=_other_parts(whole),
            tool_calls=self.tool_calls,
            usage=self.usage,
            status=status,
        )
        if not self.inner:
            yield kept
        yield self._envelope.run.completed(kept, call_id=self._envelope.place)

    def _joined(self) -> AIMessageChunk:
        # Once at the end: joining after each chunk costs the square of their number.
        return add_ai_message_chunks(self._chunks[0], *self._chunks[1:])

    def _content(self, message: AIMessage) -> Iterator[Output]:
        if isinstance(message.content, str) and not message.additional_kwargs:
            yield from self._said(message.content, None)  # the common case, without building blocks
            return
        for block in message.content_blocks:
            if block["type"] == "text":
                yield from self._said(block.get("text", ""), block.get("index"))
            elif block["type"] == "reasoning":
                yield from self._thought(block.get("reasoning", ""))

    def _said(self, text: str, block: Any) -> Iterator[Output]:
        if text:
            index = self._blocks.setdefault(block, len(self._blocks))
            data = {"delta": text, "content_type": "text", "index": index, "offset": self._offset}
            self._text.append(text)
            self._offset += len(text)
            yield self._envelope.draft("message_delta", data)

    def _thought(self, text: str) -> Iterator[Output]:
        if text:
            yield self._envelope.draft("reasoning_delta", {"delta": text, "offset": self._reasoned})
            self._reasoned += len(text)

    def _args(self, call: Mapping[str, Any]) -> Iterator[Output]:
        """The first chunk of a call names it; the following ones have only its index, or not even that."""
        index = call.get("index")
        call_id, name = self._open_calls.get(index, self._call)
        if call.get("id"):
            call_id, name = call["id"], call.get("name") or name
            self._call = self._open_calls[index] = (call_id, name)
        if call.get("args") or call.get("name"):
            data = {
                "tool_call_id": call_id,
                "name": name or call.get("name") or "",
                "delta": call.get("args") or "",
            }
            yield self._envelope.draft("tool_args_delta", data)


def said_by(message: AIMessage) -> Said:
    """What `message` says, whatever its id."""
    return message.text, _calls_of(message)


def _calls_of(message: AIMessage) -> list[dict[str, Any]]:
    valid = [
        {"id": call["id"] or "", "name": call["name"], "args": call["args"]} for call in message.tool_calls
    ]
    broken = [
        {"id": call.get("id") or "", "name": call.get("name") or "", "args": call.get("args") or ""}
        for call in message.invalid_tool_calls
    ]
    return valid + broken


def _other_parts(message: AIMessage) -> list[dict[str, Any]]:
    """The content that is neither text, reasoning nor a call: images, citations, what a server tool found."""
    if isinstance(message.content, str):
        return []
    plain = ("text", "reasoning", "tool_call", "tool_call_chunk", "invalid_tool_call")
    return [dict(block) for block in message.content_blocks if block["type"] not in plain]
