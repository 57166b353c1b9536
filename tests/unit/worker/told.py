"""What an agent tells: its stream, with the callbacks that a run hears, as drafts and messages."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain_core.messages import HumanMessage
from langchain_core.tools import tool
from langgraph.func import task
from langgraph.graph import START, MessagesState, StateGraph
from tests.records import a_run
from tests.unit.worker.models import Streams, calling

from tailrace.events import Draft
from tailrace.messages import Message
from tailrace_worker.ancestry import Ancestry
from tailrace_worker.envelope import Envelope
from tailrace_worker.tracing import Trace
from tailrace_worker.translate import Translator

RUN = a_run(run_id="r", state="running")
MODES: Any = ["messages", "updates", "custom"]
CALL = calling("add", '{"a":2,"b":1}', "c1")


@tool
async def add(a: int, b: int) -> str:
    """Add."""
    await asyncio.sleep(0.05)
    return str(a + b)


@task
async def use(call: Any) -> Any:
    """Use `add` in an agent of LangGraph's functional kind."""
    return await add.ainvoke(call)


class Told:
    """What a run of an agent told."""

    def __init__(self) -> None:
        self.translator = Translator(Envelope(RUN, Trace()))
        self.drafts: list[Draft] = []
        self.messages: list[Message] = []

    @property
    def conversation(self) -> list[tuple[str, str]]:
        return [(message.role, message.content) for message in self.messages]

    @property
    def completed(self) -> list[tuple[str, str]]:
        return [(data["content"], data["status"]) for data in self.data("message_complete")]

    def data(self, event_type: str) -> list[dict[str, Any]]:
        return [draft.data for draft in self.drafts if draft.event_type == event_type]

    def take(self, outputs: Any) -> None:
        for output in outputs:
            if isinstance(output, Draft):
                self.drafts.append(output)
            else:
                self.messages.append(output)


async def told_by(agent: Any, *prompts: str) -> Told:
    told, ancestry = Told(), Ancestry()
    envelope = Envelope(RUN, Trace(), parents_of=ancestry.parents_of)
    told.translator = Translator(envelope, ancestry=ancestry)
    said = [HumanMessage(prompt) for prompt in prompts or ("go",)]
    config: Any = {"callbacks": [ancestry]}
    stream = agent.astream({"messages": said}, stream_mode=MODES, config=config, subgraphs=True)
    async for _, mode, payload in stream:
        told.take(told.translator.translate(mode, payload))
    told.take(told.translator.close())
    return told


def graph_of(**nodes: Any) -> StateGraph[Any]:
    """A graph with these nodes, and as yet only the edge to the first."""
    graph = StateGraph(MessagesState)
    for name, node in nodes.items():
        graph.add_node(name, node)
    graph.add_edge(START, next(iter(nodes)))
    return graph


def says(model: Streams) -> Any:
    """A node that adds what the model says."""

    async def node(state: Any) -> Any:
        return {"messages": [await model.ainvoke(state["messages"])]}

    return node
