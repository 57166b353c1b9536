"""Ancestry: which LangChain run a model or a tool belongs to, and which runs that one belongs to."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler

__all__ = ["Ancestry"]


class Ancestry(BaseCallbackHandler):
    """Notes every LangChain run as it starts; the stream itself does not say whose a chunk is.

    A key is a tool call's id, or a model's place in the graph (its `langgraph_checkpoint_ns`).
    """

    run_inline = True  # in order, in the loop's own thread: a chunk must find its model noted already

    def __init__(self) -> None:
        self._parents: dict[UUID, UUID | None] = {}
        self._runs: dict[str, UUID] = {}

    def parents_of(self, key: str) -> tuple[str, ...]:
        """The ids of the runs around the model or tool of `key`, outermost first; its own id is the last."""
        chain: list[str] = []
        run_id = self._runs.get(key)
        while run_id is not None:
            chain.append(str(run_id))
            run_id = self._parents.get(run_id)
        return tuple(reversed(chain))

    def on_chain_start(
        self, serialized: Any, inputs: Any, *, run_id: UUID, parent_run_id: UUID | None = None, **_: Any
    ) -> None:
        """Note an agent, a node or another step."""
        self._parents[run_id] = parent_run_id

    def on_chat_model_start(
        self,
        serialized: Any,
        messages: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Note a model by its place in the graph."""
        self._parents[run_id] = parent_run_id
        if place := (metadata or {}).get("langgraph_checkpoint_ns"):
            self._runs[place] = run_id

    def on_tool_start(
        self,
        serialized: Any,
        input_str: str,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        tool_call_id: str | None = None,
        **_: Any,
    ) -> None:
        """Note a tool by the id of its call."""
        self._parents[run_id] = parent_run_id
        if tool_call_id:
            self._runs[tool_call_id] = run_id
