"""The Langfuse callback handler of one run. Imports Langfuse: import this module only where tracing is on."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langfuse.langchain import CallbackHandler
from langfuse.types import TraceContext

__all__ = ["RunHandler"]


class RunHandler(CallbackHandler):
    """Records a run under a trace id known beforehand, and remembers which observation is whose."""

    # In the event loop's own thread: a pool thread per token is twenty times slower and loses the context.
    run_inline = True

    def __init__(self, public_key: str | None, trace_id: str) -> None:
        super().__init__(public_key=public_key, trace_context=TraceContext(trace_id=trace_id))
        self.observations: dict[str, str] = {}  # a tool call's id, or a model's place in the graph

    def on_chat_model_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> Any:
        """Remember the model's observation by its place in the graph, which its chunks carry too."""
        result = super().on_chat_model_start(*args, run_id=run_id, **kwargs)
        self._remember((kwargs.get("metadata") or {}).get("langgraph_checkpoint_ns"), run_id)
        return result

    def on_tool_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> Any:
        """Remember the tool's observation by the id of its call."""
        result = super().on_tool_start(*args, run_id=run_id, **kwargs)
        self._remember(kwargs.get("tool_call_id"), run_id)
        return result

    def _remember(self, key: str | None, run_id: UUID) -> None:
        observation = self._runs.get(run_id)
        if key and observation is not None:
            self.observations[key] = observation.id
