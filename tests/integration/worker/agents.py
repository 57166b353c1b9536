"""Agents of a user's own, named in TAILRACE_AGENTS by the tests."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage
from langchain_core.tools import tool
from langgraph.config import get_stream_writer
from langgraph.graph import START, MessagesState, StateGraph
from pymongo import MongoClient

from tailrace.runs import LEASE_SECONDS
from tailrace_worker.agents import Agent, AgentContext, tool_errors


class Scripted:
    """Yields what it was given, then raises `error` if there is one."""

    def __init__(self, *items: Any, error: BaseException | None = None) -> None:
        self._items = items
        self._error = error

    async def astream(self, input: Any, *, stream_mode: Any, config: Any) -> AsyncIterator[Any]:
        for item in self._items:
            yield item
        if self._error:
            raise self._error


def refused(context: AgentContext) -> Agent:
    """Reports what neither BSON nor JSON holds."""
    deep: list[Any] = []
    for _ in range(5_000):
        deep = [deep]
    values = [b"\xff", {1, 2}, {"a\0b": 1}, 2**70, "\ud800", float("nan"), deep, "x" * 20_000_000, object()]
    return Scripted(
        *(("custom", value) for value in values), ("custom", {"type": "progress", "value": {3: b"\0"}})
    )


def raising(context: AgentContext) -> Agent:
    """Raises the class that the prompt names."""
    errors: dict[str, BaseException] = {
        "recursion": RecursionError("deep"),
        "overflow": OverflowError("big"),
        "unicode": UnicodeEncodeError("utf-8", "\ud800", 0, 1, "surrogates not allowed"),
        "exit": SystemExit(3),
        "group": ExceptionGroup("several", [ValueError("first"), KeyError("second")]),
        "cancelled": asyncio.CancelledError(),
        "interrupt": KeyboardInterrupt(),
        "timeout": TimeoutError("mine"),
        "no str": _Unprintable(),
        "surrogate": ValueError("bad \ud800"),
    }
    return Scripted(error=errors[context.run.prompt])


class _Unprintable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("cannot be shown")


@tool
def leave() -> str:
    """Leave the process."""
    sys.exit(4)


@tool
async def block() -> str:
    """Block the agent's event loop for more than a lease."""
    time.sleep(LEASE_SECONDS + 3)  # noqa: ASYNC251 - as a careless tool does
    return "still here"


@tool
async def hang() -> str:
    """Block the agent's event loop for ever."""
    while True:
        time.sleep(3600)  # noqa: ASYNC251 - as a careless tool does


@tool
def broken() -> str:
    """Fail."""
    raise RuntimeError("the disk is <b>full</b>\n\ndata: x")


@tool
def reporting() -> str:
    """Report progress."""
    write = get_stream_writer()
    write({"type": "progress", "value": 0.5})
    write({"type": "tool_progress", "progress": "half"})
    write({"type": "file_change", "path": "a.txt", "change": "created"})
    write(["anything", "else"])
    return "done"


def with_tool(context: AgentContext) -> Agent:
    """The default agent's loop with the tool that the prompt names, by a model that calls it."""
    from tests.unit.worker.models import CallsOnce

    name = context.run.prompt
    return create_agent(
        CallsOnce(tool=name), [leave, broken, reporting, block, hang], middleware=[tool_errors()]
    )


class Witness:
    """Says much, calls a tool, and reports what the log says last before anything else happens here."""

    def __init__(self, context: AgentContext) -> None:
        self._context = context

    async def astream(self, input: Any, *, stream_mode: Any, config: Any) -> AsyncIterator[Any]:
        for nth in range(100):
            yield "custom", nth
        call = AIMessage("", id="ai", tool_calls=[{"id": "call_1", "name": "any", "args": {}}])
        yield "updates", {"model": {"messages": [call]}}
        settings, run = self._context.settings, self._context.run
        with MongoClient[dict[str, Any]](settings.mongodb_url) as client:
            events = client[settings.mongodb_db]["events"]
            last = events.find_one({"session_id": run.session_id}, sort=[("seq", -1)]) or {}
        yield "custom", last["event_type"]


def witness(context: AgentContext) -> Agent:
    """Looks at the log when its tool would run."""
    return Witness(context)


def team(context: AgentContext) -> Agent:
    """An agent in a graph, which streams as the graph does."""
    graph = StateGraph(MessagesState)
    graph.add_node("member", create_agent(context.model, []))
    graph.add_edge(START, "member")
    return graph.compile()


class Threads:
    """Reports under which thread a checkpointer would keep its state."""

    async def astream(self, input: Any, *, stream_mode: Any, config: Any) -> AsyncIterator[Any]:
        yield "custom", config["configurable"]["thread_id"]


def threads(context: AgentContext) -> Agent:
    """Looks at its configuration."""
    return Threads()


def failing_factory(context: AgentContext) -> Agent:
    """Cannot be made."""
    raise ValueError("no configuration")


def no_agent(context: AgentContext) -> Any:
    """Returns something else."""
    return 7


async def later(context: AgentContext) -> Agent:
    """An asynchronous factory."""
    return Scripted(("custom", "hello"))
