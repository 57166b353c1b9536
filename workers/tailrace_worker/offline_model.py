"""The offline demo model: a deterministic chat model that streams, calls tools and needs no key."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import Runnable
from langchain_core.tools import BaseTool
from langchain_core.utils.function_calling import convert_to_openai_tool

from tailrace_worker.offline_rules import Reply, decide

__all__ = ["OfflineModel", "OfflineModelFailed"]

# LangChain merges chunks by index: a tool call with a content block's index would be merged into it.
_FIRST_TOOL_INDEX = 16
_TOKEN = re.compile(r"\s*\S+\s*?|\s+")


class OfflineModelFailed(Exception):
    """You asked the offline demo model to fail, and it did."""


class OfflineModel(BaseChatModel):
    """Answers by rules over the last user message, at a human pace. It says honestly what it is.

    ============================  ==================================================================
    a prompt with                 makes it
    ============================  ==================================================================
    arithmetic, `12*(3+4)`        call `calculator`
    "time", "date" or "day"       call `clock`, once for each city or IANA zone named, in parallel
    "remember …", "note …"        call `notes` to add
    "what did I note", "my notes" call `notes` to list; "clear my notes" to clear
    "write N words"               give a long answer, up to 100,000 words
    "think …"                     reason before it answers
    "what did I say before?"      quote the previous user message
    "please fail"                 raise at once
    "please fail later"           raise in mid-answer
    ============================  ==================================================================

    Anything else is echoed, with the number of earlier messages that it sees. After tool results it answers
    with them. Tools are called only when they are bound.
    """

    tokens_per_second: float = 30.0

    @property
    def _llm_type(self) -> str:
        return "tailrace-offline"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {"model_name": "offline"}

    def bind_tools(
        self, tools: Sequence[dict[str, Any] | type | Callable[..., Any] | BaseTool], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The model with these tools in reach."""
        kwargs.pop("tool_choice", None)
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools], **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        reply = _reply(messages, kwargs)
        if reply.error:
            raise OfflineModelFailed(reply.error)
        message = AIMessage(
            reply.text, tool_calls=list(reply.tool_calls), usage_metadata=_usage(messages, reply)
        )
        return ChatResult(generations=[ChatGeneration(message=message)])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        for chunk in _chunks(messages, _reply(messages, kwargs)):
            time.sleep(1 / self.tokens_per_second)
            yield chunk

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in _chunks(messages, _reply(messages, kwargs)):
            await asyncio.sleep(1 / self.tokens_per_second)
            yield chunk


def _reply(messages: list[BaseMessage], kwargs: dict[str, Any]) -> Reply:
    return decide(messages, {tool["function"]["name"] for tool in kwargs.get("tools", ())})


def _chunks(messages: list[BaseMessage], reply: Reply) -> Iterator[ChatGenerationChunk]:
    for token in _TOKEN.findall(reply.reasoning):
        yield _chunk(content=[{"type": "reasoning", "reasoning": token, "index": 0}])
    for token in _TOKEN.findall(reply.text):
        yield _chunk(content=[{"type": "text", "text": token, "index": 1}] if reply.reasoning else token)
    if reply.error:
        raise OfflineModelFailed(reply.error)
    for index, call in enumerate(reply.tool_calls, _FIRST_TOOL_INDEX):
        yield _call_chunk(index, name=call["name"], call_id=call["id"], args="")
        for part in _TOKEN.findall(json.dumps(call["args"], ensure_ascii=False)):
            yield _call_chunk(index, args=part)
    yield _chunk(
        content=[] if reply.reasoning else "", usage_metadata=_usage(messages, reply), chunk_position="last"
    )


def _chunk(**fields: Any) -> ChatGenerationChunk:
    return ChatGenerationChunk(message=AIMessageChunk(**fields))


def _call_chunk(
    index: int, *, args: str, name: str | None = None, call_id: str | None = None
) -> ChatGenerationChunk:
    part = {"type": "tool_call_chunk", "name": name, "args": args, "id": call_id, "index": index}
    return _chunk(content="", tool_call_chunks=[part])


def _usage(messages: list[BaseMessage], reply: Reply) -> UsageMetadata:
    """Words count as tokens: the demo model has no tokenizer."""
    taken = sum(len(message.text.split()) for message in messages)
    given = len(f"{reply.reasoning} {reply.text}".split()) + sum(
        len(call["args"]) for call in reply.tool_calls
    )
    return UsageMetadata(input_tokens=taken, output_tokens=given, total_tokens=taken + given)
