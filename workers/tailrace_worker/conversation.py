"""A session's conversation as an agent is given it, in LangChain's messages."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import takewhile
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
    and what comes before the first user message is too. Nor may anything stand between a call and its result,
    as what another branch of the agent said meanwhile does.
    """
    given: list[BaseMessage] = []
    for nth, message in enumerate(messages):
        if message.role == "assistant":
            calls = [
                call for call in message.tool_calls if isinstance(call.get("args"), dict) and call.get("id")
            ]
            if calls or message.content or message.content_parts:
                given.append(_assistant(message, calls))
            given += [_result(call, message, messages[nth + 1 :]) for call in calls]
        elif message.role != "tool":
            kind = HumanMessage if message.role == "user" else SystemMessage
            given.append(kind(content_of(message.content, message.content_parts), id=message.message_id))
    first = next((nth for nth, message in enumerate(given) if isinstance(message, HumanMessage)), len(given))
    return given[first:]


def _assistant(message: Message, calls: list[dict[str, Any]]) -> AIMessage:
    # The other parts are the provider's own and may not be sent to another; the text is everybody's.
    return AIMessage(
        message.content,
        id=message.message_id,
        tool_calls=[{"id": call["id"], "name": call["name"], "args": call["args"]} for call in calls],
    )


def _result(call: dict[str, Any], asked_by: Message, later: Sequence[Message]) -> ToolMessage:
    for message in takewhile(lambda message: message.role != "user", later):
        if message.role == "tool" and message.tool_call_id == call["id"]:
            return ToolMessage(
                content_of(message.content, message.content_parts),
                id=message.message_id,
                tool_call_id=call["id"],
                name=message.name,
                status="success" if message.status == "complete" else "error",
            )
    return ToolMessage(
        "The run ended before this tool did.",
        id=f"{asked_by.message_id}-{call['id']}",  # one that is known: an agent may tell it again
        tool_call_id=call["id"],
        name=call["name"],
        status="error",
    )
