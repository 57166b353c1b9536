"""The rehearsal: an agent that nobody asked for, so that the first one somebody asks for begins sooner."""

from __future__ import annotations

from typing import Any

from langchain.agents import create_agent
from langsmith import tracing_context

from tailrace_worker.agents import tool_errors
from tailrace_worker.offline_model import OfflineModel
from tailrace_worker.tools import calculator

__all__ = ["rehearse"]


async def rehearse(prompt: str) -> None:
    """Let the offline model answer `prompt`, and tell nobody; arithmetic has it call a tool."""
    model = OfflineModel(tokens_per_second=1e6)
    agent: Any = create_agent(model, [calculator], system_prompt="Compute.", middleware=[tool_errors()])
    asked = {"messages": [{"role": "user", "content": prompt}]}
    with tracing_context(enabled=False):  # whatever the environment says of LangSmith
        async for _ in agent.astream(asked, stream_mode=["messages", "updates", "custom"]):
            pass
