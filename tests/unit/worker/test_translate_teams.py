"""Agents that work for other agents: as a graph's node, asked by a node, asked by a tool, by a handoff."""

from __future__ import annotations

from typing import Annotated, Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, HumanMessage, ToolMessage
from langchain_core.tools import InjectedToolCallId, tool
from langgraph.types import Command
from tests.unit.worker.models import Streams, calling, used
from tests.unit.worker.told import CALL, add, graph_of, told_by

TURNS = [["let me ", CALL, used()], ["it ", "is 3", used()]]
CONVERSATION = [("assistant", "let me "), ("tool", "3"), ("assistant", "it is 3")]


async def test_an_agent_that_is_a_node_is_told_as_it_goes_and_once() -> None:
    told = await told_by(graph_of(sub=create_agent(Streams(turns=TURNS), [add])).compile())
    assert told.conversation == CONVERSATION
    assert [data["delta"] for data in told.data("message_delta")] == ["let me ", "it ", "is 3"]
    assert [data["input"] for data in told.data("tool_start")] == [{"a": 2, "b": 1}]
    assert told.translator.usage["total_tokens"] == 30


async def test_an_agent_that_a_node_asks_is_told_once() -> None:
    sub = create_agent(Streams(turns=TURNS), [add])

    async def asks(state: Any) -> Any:
        answer = await sub.ainvoke({"messages": state["messages"]})
        return {"messages": [AIMessage(answer["messages"][-1].text, name="sub")]}

    async def streams(state: Any) -> Any:
        stream: Any = sub.astream(state, stream_mode="messages")
        said = [message.text async for message, _ in stream]
        return {"messages": [AIMessage("".join(said[-4:]))]}  # two with text, the usage, and the end

    for node in (asks, streams):
        sub = create_agent(Streams(turns=TURNS), [add])
        told = await told_by(graph_of(sub=node).compile())
        assert told.conversation == CONVERSATION
        assert len(told.data("message_delta")) == 3


async def test_an_agent_that_a_tool_asks_is_no_turn_but_counts() -> None:
    sub = create_agent(Streams(turns=TURNS), [add])

    @tool
    async def ask(question: str) -> str:
        """Ask another agent."""
        answer = await sub.ainvoke({"messages": [HumanMessage(question)]})
        return str(answer["messages"][-1].text)

    model = Streams(turns=[[calling("ask", '{"question":"x"}', "c0"), used()], ["done", used()]])
    told = await told_by(create_agent(model, [ask]))
    assert told.conversation == [("assistant", ""), ("tool", "it is 3"), ("assistant", "done")]
    assert [data["tool_call_id"] for data in told.data("tool_end")] == ["c1", "c0"]
    assert told.translator.usage["total_tokens"] == 60


async def test_a_handoff_is_told_once() -> None:
    @tool
    def hand_over(tool_call_id: Annotated[str, InjectedToolCallId]) -> Command[Any]:
        """Hand over to Bob."""
        handed = ToolMessage("handed over", tool_call_id=tool_call_id)
        return Command(goto="bob", graph=Command.PARENT, update={"messages": [handed]})

    alice = create_agent(Streams(turns=[["alice", calling("hand_over", "{}", "c1")]]), [hand_over])
    bob = create_agent(Streams(turns=[["bob"]]), [add])
    told = await told_by(graph_of(alice=alice, bob=bob).compile())
    assert told.conversation == [("assistant", "alice"), ("tool", "handed over"), ("assistant", "bob")]
    assert len(told.data("tool_end")) == 1
