"""The Langfuse callback handler of one run. Imports Langfuse: import this module only where tracing is on."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import UUID

from langchain_core.utils.utils import LC_ID_PREFIX
from langfuse.langchain import CallbackHandler
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace import format_span_id

from tailrace_worker.spans import pinned

__all__ = ["RunHandler"]

_random = RandomIdGenerator()


class RunHandler(CallbackHandler):
    """Records a run under span ids that are known as its models and tools begin."""

    # In the event loop's own thread: a pool thread per token is twenty times slower and loses the context.
    run_inline = True

    def __init__(self, public_key: str | None, *, tool_of: Callable[[str], str]) -> None:
        super().__init__(public_key=public_key)
        self.generations: dict[str, str] = {}  # a message's id, or the model's place in the graph -> span id
        self._tool_of = tool_of
        self._tools: set[str] = set()  # the span ids that are taken

    def on_chat_model_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> Any:
        """Remember the model's span by what its chunks carry: the message's id, the place in the graph."""
        span_id = format_span_id(_random.generate_span_id())
        self.generations[f"{LC_ID_PREFIX}-{run_id}"] = span_id
        if place := (kwargs.get("metadata") or {}).get("langgraph_checkpoint_ns"):
            self.generations[place] = span_id
        with pinned(span_id):
            return super().on_chat_model_start(*args, run_id=run_id, **kwargs)

    def on_tool_start(self, *args: Any, run_id: UUID, **kwargs: Any) -> Any:
        """Give the tool the span id that its events have already; a second try of a call gets another."""
        call_id = kwargs.get("tool_call_id")
        span_id = self._tool_of(call_id) if call_id else None
        if span_id is None or span_id in self._tools:
            span_id = format_span_id(_random.generate_span_id())
        self._tools.add(span_id)
        with pinned(span_id):
            return super().on_tool_start(*args, run_id=run_id, **kwargs)

    def on_llm_new_token(self, *args: Any, run_id: UUID, **kwargs: Any) -> Any:
        """Note when the first token came; the others cost a look into a set."""
        if run_id not in self._updated_completion_start_time_memo:
            super().on_llm_new_token(*args, run_id=run_id, **kwargs)

    def _get_error_level_and_status_message(self, error: BaseException) -> tuple[Any, str]:
        """A cancellation is no error of what it ends; and it has no words of its own."""
        if isinstance(error, asyncio.CancelledError):
            return "WARNING", "Stopped before it ended."
        return super()._get_error_level_and_status_message(error)
