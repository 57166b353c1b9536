"""A session's conversation as an agent is given it, in LangChain's messages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from langchain_core.messages import AIMessage, BaseMessage, HumanMessage, SystemMessage, ToolMessage

from tailrace.messages import Message

__all__ = ["content_of", "to_langchain"]


def content_of(text: str, parts: Sequence[dict[str, Any]]) -> str | list[str | dict[str, Any]]:
    """The content of a LangChain message: the text alone, or the text before the other parts."""
    if not parts:
        return text
    said = any(part.get("type") == "text" for part in parts)
    return [*parts] if said or not text else [{"type": "text", "text": text}, *parts]


def to_langchain(messages: Sequence[Message]) -> list[BaseMessage]:
    """The messages as a model's provider accepts them.

    A cut at the front or a run that ended too early leaves tool calls without results and results without
    calls; providers answer both with an error. The former get a result that says so, the latter are left out,
    and what comes before the first user message is too.
    """
    given: list[BaseMessage] = []
    waiting: dict[str, str] = {}  # tool call id -> tool's name
    for message in messages:
        if message.role == "tool":
            if message.tool_call_id in waiting:
                waiting.pop(message.tool_call_id)
                given.append(_tool(message))
            continue
        given += _unanswered(waiting)
        waiting = {}
        if message.role == "assistant":
            calls = [
                call for call in message.tool_calls if isinstance(call.get("args"), dict) and call.get("id")
            ]
            waiting = {call["id"]: call["name"] for call in calls}
            if calls or message.content or message.content_parts:
                given.append(_assistant(message, calls))
        else:
            kind = HumanMessage if message.role == "user" else SystemMessage
            given.append(kind(content_of(message.content, message.content_parts), id=message.message_id))
    given += _unanswered(waiting)
    first = next((nth for nth, message in enumerate(given) if isinstance(message, HumanMessage)), len(given))
    return given[first:]


def _assistant(message: Message, calls: list[dict[str, Any]]) -> AIMessage:
    # The other parts are the provider's own and may not be sent to another; the text is everybody's.
    return AIMessage(
        message.content,
        id=message.message_id,
        tool_calls=[{"id": call["id"], "name": call["name"], "args": call["args"]} for call in calls],
    )


def _tool(message: Message) -> ToolMessage:
    return ToolMessage(
        content_of(message.content, message.content_parts),
        id=message.message_id,
        tool_call_id=message.tool_call_id or "",
        name=message.name,
    )


def _unanswered(waiting: dict[str, str]) -> list[ToolMessage]:
    return [
        ToolMessage("The run ended before this tool did.", tool_call_id=call_id, name=name, status="error")
        for call_id, name in waiting.items()
    ]
