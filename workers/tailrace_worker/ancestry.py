"""Ancestry: which LangChain run a model or a tool belongs to, and which runs that one belongs to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.outputs import LLMResult

__all__ = ["Ancestry"]


class Ancestry(BaseCallbackHandler):
    """Notes every LangChain run as it starts; the stream itself does not say whose a chunk is.

    A key is a tool call's id, or a place in the graph (its `langgraph_checkpoint_ns`): the model's that began
    there last, else the node's.
    """

    # In order, before the stream gets the same chunk: it must find its model noted already.
    run_inline = True

    def __init__(self) -> None:
        self.broken: set[UUID] = set()  # the models that broke off
        self._parents: dict[UUID, UUID | None] = {}
        self._runs: dict[str, UUID] = {}
        self._models: dict[str, UUID] = {}  # by the ids of their chunks
        self._tools: set[UUID] = set()

    def parents_of(self, key: str) -> tuple[str, ...]:
        """The ids of the runs around the model or tool of `key`, outermost first; its own id is the last."""
        return tuple(reversed([str(run_id) for run_id in self._around(self._runs.get(key))]))

    def model_of(self, message_id: str | None) -> UUID | None:
        """The model's run that said the message; a message may have several ids."""
        return self._models.get(message_id or "")

    def in_tool(self, message_id: str | None, place: str | None) -> bool:
        """Whether a tool ran the model that said the message, or the place that it comes from."""
        run_id = self.model_of(message_id) or self._runs.get(place or "")
        return any(found in self._tools for found in self._around(run_id))

    def _around(self, run_id: UUID | None) -> Iterator[UUID]:
        while run_id is not None:
            yield run_id
            run_id = self._parents.get(run_id)

    def on_chain_start(
        self,
        serialized: Any,
        inputs: Any,
        *,
        run_id: UUID,
        parent_run_id: UUID | None = None,
        metadata: dict[str, Any] | None = None,
        **_: Any,
    ) -> None:
        """Note an agent, a node or another step."""
        self._parents[run_id] = parent_run_id
        if place := (metadata or {}).get("langgraph_checkpoint_ns"):
            self._runs.setdefault(place, run_id)

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

    def on_llm_new_token(self, token: Any, *, chunk: Any = None, run_id: UUID, **_: Any) -> None:
        """Note the id of a chunk: a provider may name the first one only, and LangChain names the others."""
        if message_id := getattr(getattr(chunk, "message", None), "id", None):
            self._models[message_id] = run_id

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **_: Any) -> None:
        """Note the id of a whole message, from a model that does not stream."""
        for generation in response.generations[0] if response.generations else ():
            if message_id := getattr(getattr(generation, "message", None), "id", None):
                self._models[message_id] = run_id

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **_: Any) -> None:
        """Note a model that broke off; another try may follow, as a run of its own."""
        self.broken.add(run_id)

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
        self._tools.add(run_id)
        if tool_call_id:
            self._runs[tool_call_id] = run_id
