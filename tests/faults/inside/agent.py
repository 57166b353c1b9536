"""An agent that says all that is hard to store: in custom events, its text and what its tools return."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk, ToolMessage
from tests.faults.hostile import MARK, TEXTS, VALUES

from tailrace_worker.agents import AgentContext

__all__ = ["build"]


class HostileAgent:
    """Streams like a LangChain agent."""

    def __init__(self, *, pause: float) -> None:
        self._pause = pause

    async def astream(self, input: Any, *, stream_mode: Any, config: Any) -> AsyncIterator[Any]:
        """Yield `(mode, payload)`."""
        for name, value in VALUES.items():
            yield "custom", {"type": "custom", MARK: True, "name": name, "it": value}
            await asyncio.sleep(self._pause)
        calls = [{"id": f"call_{nth}", "name": f"tool\r\n{nth}", "args": {"\0": 1}} for nth in range(3)]
        for text in (*TEXTS, "\ud800 alone"):
            yield "messages", (AIMessageChunk(content=text, id="said"), {})
            await asyncio.sleep(self._pause)
        yield "updates", {"model": {"messages": [AIMessage("", id="said", tool_calls=calls)]}}
        for call, output in zip(calls, ("o" * 17_000_000, TEXTS[0], "\ud800\0"), strict=True):
            told = ToolMessage(output, tool_call_id=call["id"], name=call["name"], id=f"told-{call['id']}")
            yield "updates", {"tools": {"messages": [told]}}
            await asyncio.sleep(self._pause)
        yield "messages", (AIMessageChunk(content="That was all.", id="end"), {})


def build(context: AgentContext) -> HostileAgent:
    """Named in TAILRACE_AGENTS."""
    return HostileAgent(pause=1 / context.settings.offline_tokens_per_second)
