"""The agent of the whole path: a model with a pace of its own, whose every token is stamped."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any, Literal

from langchain.agents import create_agent
from langchain_core.callbacks import AsyncCallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult
from ops.bench.pace import TOKENS, TOKENS_PER_SECOND
from ops.bench.stamp import stamped

from tailrace_worker.agents import Agent, AgentContext

__all__ = ["PacedModel", "build"]


class PacedModel(BaseChatModel):
    """A model whose n-th token is due n / `TOKENS_PER_SECOND` s after it was asked, whoever is late."""

    tokens: int = TOKENS  # of its answer

    @property
    def _llm_type(self) -> str:
        return "bench-paced"

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: Any = None,
        **kwargs: Any,
    ) -> ChatResult:
        raise NotImplementedError("it only streams")

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        began = time.monotonic()
        for nth in range(1, self.tokens + 1):
            await asyncio.sleep(max(0.0, began + nth / TOKENS_PER_SECOND - time.monotonic()))
            last: Literal["last"] | None = "last" if nth == self.tokens else None
            yield ChatGenerationChunk(
                message=AIMessageChunk(content=f"{stamped(nth)} token ", chunk_position=last)
            )


def build(context: AgentContext) -> Agent:
    """LangChain's agent around that model, without tools; the run's metadata may say how many `tokens`."""
    return create_agent(PacedModel(tokens=context.run.metadata.get("tokens", TOKENS)), [])
