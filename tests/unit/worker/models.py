"""Chat models of the tests: real LangChain models with a script."""

from __future__ import annotations

from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatResult


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
