"""Chat models of the tests: real LangChain models with a script."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.messages.ai import UsageMetadata
from langchain_core.messages.tool import tool_call_chunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult


class Says(BaseChatModel):
    """Does not stream: gives one whole message after the other."""

    messages: list[AIMessage]

    @property
    def _llm_type(self) -> str:
        return "says"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        turn = sum(isinstance(message, AIMessage) for message in messages)
        return ChatResult(generations=[ChatGeneration(message=self.messages[turn].model_copy())])


class CallsOnce(BaseChatModel):
    """Calls one tool without arguments, then says what it got."""

    tool: str

    @property
    def _llm_type(self) -> str:
        return "calls-once"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        last = messages[-1]
        if isinstance(last, ToolMessage):
            message = AIMessage(f"It said: {last.text}")
        else:
            message = AIMessage("", tool_calls=[{"id": "call_1", "name": self.tool, "args": {}}])
        return ChatResult(generations=[ChatGeneration(message=message)])


class Streams(BaseChatModel):
    """Streams one turn after the other, the last again and again: texts, chunks and what is to be raised."""

    turns: list[list[Any]]
    seconds: float = 0.0  # before each chunk
    turn: int = 0

    @property
    def _llm_type(self) -> str:
        return "streams"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        raise NotImplementedError

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        turn = self.turns[min(self.turn, len(self.turns) - 1)]
        self.turn += 1
        for part in turn:
            await asyncio.sleep(self.seconds)
            if isinstance(part, Exception):
                raise part
            chunk = AIMessageChunk(content=part) if isinstance(part, str) else part.model_copy()
            yield ChatGenerationChunk(message=chunk)


def calling(name: str, args: str, call_id: str, *, index: int = 0) -> AIMessageChunk:
    """A chunk that calls a tool; `args` is JSON."""
    part = tool_call_chunk(name=name, args=args, id=call_id, index=index)
    return AIMessageChunk(content="", tool_call_chunks=[part])


def used() -> AIMessageChunk:
    """A chunk that says how many tokens were used."""
    usage = UsageMetadata(input_tokens=10, output_tokens=5, total_tokens=15)
    return AIMessageChunk(content="", usage_metadata=usage)
