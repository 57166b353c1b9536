"""What real agents of many kinds stream, as drafts and messages."""

from __future__ import annotations

import asyncio
from typing import Any

from langchain.agents import create_agent
from langchain.agents.middleware import (
    LLMToolSelectorMiddleware,
    ModelFallbackMiddleware,
    ModelRetryMiddleware,
    SummarizationMiddleware,
)
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage
from langchain_core.tools import tool
from langgraph.func import entrypoint, task
from langgraph.graph import START
from langgraph.prebuilt import ToolNode
from pydantic import BaseModel
from tests.unit.worker.models import Says, Streams, calling, used
from tests.unit.worker.told import CALL, add, graph_of, says, told_by, use

from tailrace_worker.offline_model import OfflineModel


@tool
def asks_a_model(question: str) -> str:
    """Ask another model."""
    return OfflineModel(tokens_per_second=1e6).invoke(question).text


class Route(BaseModel):
    """Choose a way."""

    to: str


async def test_a_provider_that_names_only_its_first_chunk_says_one_message() -> None:
    first = [AIMessageChunk(content="", id="resp_1"), "let me ", CALL, used()]
    second = [AIMessageChunk(content="", id="resp_2"), "it is ", "3", used()]
    told = await told_by(create_agent(Streams(turns=[first, second]), [add]))
    assert told.conversation == [("assistant", "let me "), ("tool", "3"), ("assistant", "it is 3")]
    assert len(told.data("message_start")) == 2
    assert told.translator.usage["total_tokens"] == 30


async def test_two_messages_of_such_a_provider_at_one_place_stay_two() -> None:
    models = [Streams(turns=[[AIMessageChunk(content="", id=f"resp_{n}"), f"{n} ", f"{n}"]]) for n in (1, 2)]

    async def node(state: Any) -> Any:
        return {"messages": await asyncio.gather(*(model.ainvoke("x") for model in models))}

    told = await told_by(graph_of(both=node).compile())
    assert told.conversation == [("assistant", "1 1"), ("assistant", "2 2")]


async def test_a_model_that_breaks_off_and_is_tried_again() -> None:
    model = Streams(turns=[["par", "tial", ConnectionError("cut")], ["whole"]])
    retrying = ModelRetryMiddleware(max_retries=2, initial_delay=0.0)
    told = await told_by(create_agent(model, [add], middleware=[retrying]))
    assert told.completed == [("partial", "error"), ("whole", "complete")]
    assert [draft.event_type for draft in told.drafts].index(
        "message_complete"
    ) == 3  # before the next begins
    assert told.translator.answer == "whole"


async def test_a_model_that_breaks_off_and_is_replaced() -> None:
    model = Streams(turns=[["par", "tial", ConnectionError("cut")]])
    falling_back = ModelFallbackMiddleware(Streams(turns=[["whole"]]))
    told = await told_by(create_agent(model, [add], middleware=[falling_back]))
    assert told.completed == [("partial", "error"), ("whole", "complete")]


async def test_a_model_that_breaks_off_with_nothing_after_it() -> None:
    model = Streams(turns=[["partial", ConnectionError("cut")]])

    async def node(state: Any) -> Any:
        try:
            await model.ainvoke("x")
        except ConnectionError:
            return {"messages": []}

    told = await told_by(graph_of(tries=node).compile())
    assert told.completed == [("partial", "error")]
    assert told.translator.answer == ""


async def test_a_summary_is_no_turn_but_counts() -> None:
    model, summing = Streams(turns=[["answer", used()]]), Streams(turns=[["SUMMARY", used()]])
    middleware = SummarizationMiddleware(model=summing, trigger=("messages", 2), keep=("messages", 1))
    told = await told_by(create_agent(model, [add], middleware=[middleware]), "a", "b", "c")
    assert summing.turn == 1
    assert told.completed == [("answer", "complete")]
    assert told.translator.usage["total_tokens"] == 30


async def test_a_choice_of_tools_is_no_turn_but_counts() -> None:
    choosing = Streams(turns=[[calling("ToolSelectionResponse", '{"tools":["add"]}', "s1"), used()]])
    middleware = LLMToolSelectorMiddleware(model=choosing, max_tools=1)
    model = Streams(turns=[["answer", used()]])
    told = await told_by(create_agent(model, [add], middleware=[middleware]))
    assert choosing.turn == 1
    assert told.conversation == [("assistant", "answer")]
    assert told.data("tool_args_delta") == []
    assert told.translator.usage["total_tokens"] == 30


async def test_a_copy_of_what_a_model_said_is_not_told_again() -> None:
    model = Streams(turns=[["the ", "answer", used()]])

    async def renamed(state: Any) -> Any:
        return {"messages": [AIMessage((await model.ainvoke("x")).text, name="me")]}

    async def unnamed(state: Any) -> Any:
        return {"messages": [(await model.ainvoke("x")).model_copy(update={"id": None})]}

    for node in (renamed, unnamed):
        told = await told_by(graph_of(answer=node).compile())
        assert told.completed == [("the answer", "complete")]
        assert told.translator.usage["total_tokens"] == 15


async def test_a_model_that_says_the_same_twice_said_it_twice() -> None:
    model = Says(messages=[AIMessage("ok")])

    async def node(state: Any) -> Any:
        return {"messages": [await model.ainvoke([HumanMessage("x")]) for _ in range(2)]}

    told = await told_by(graph_of(twice=node).compile())
    assert told.conversation == [("assistant", "ok"), ("assistant", "ok")]


async def test_what_a_model_says_inside_a_tool_is_no_turn_of_the_conversation() -> None:
    call = calling("asks_a_model", '{"question":"write 3 words"}', "c")
    told = await told_by(create_agent(Streams(turns=[[call], ["done"]]), [asks_a_model]))
    assert [message.role for message in told.messages] == ["assistant", "tool", "assistant"]
    assert "the" in {delta["delta"] for delta in told.data("message_delta")}


async def test_an_answer_after_a_call_that_nothing_answers_is_a_turn() -> None:
    route = Streams(turns=[[calling("Route", '{"to":"x"}', "r1")]])
    graph = graph_of(route=says(route), answer=says(Streams(turns=[["the ", "answer"]])))
    graph.add_edge("route", "answer")
    told = await told_by(graph.compile())
    assert told.conversation == [("assistant", ""), ("assistant", "the answer")]
    assert told.translator.answer == "the answer"


async def test_an_answer_beside_a_tool_that_runs_is_a_turn() -> None:
    other = Streams(turns=[["b ", "says ", "hello"]], seconds=0.03)
    graph = graph_of(
        asks=says(Streams(turns=[[CALL]])), tools=ToolNode([add]), prepares=lambda _: {}, answers=says(other)
    )
    for edge in ((START, "prepares"), ("asks", "tools"), ("prepares", "answers")):
        graph.add_edge(*edge)
    told = await told_by(graph.compile())
    assert sorted(told.conversation) == [("assistant", ""), ("assistant", "b says hello"), ("tool", "3")]


async def test_a_tools_end_does_not_end_what_is_said_beside_it() -> None:
    slow, asks = Streams(turns=[["slow ", "text ", "here"]], seconds=0.1), Streams(turns=[[CALL]])

    @task
    async def said_slowly() -> Any:
        return await slow.ainvoke("x")

    @entrypoint()
    async def agent(given: Any) -> Any:
        saying, asked = said_slowly(), await asks.ainvoke("x")
        await asyncio.sleep(0.15)
        await use(asked.tool_calls[0])
        return await saying

    told = await told_by(agent)
    assert ("slow text here", "complete") in told.completed


async def test_a_tool_that_starts_with_its_result_tells_its_input() -> None:
    structured = create_agent(Streams(turns=[[calling("Route", '{"to":"x"}', "r1")]]), response_format=Route)
    told = await told_by(structured)
    assert told.data("tool_start") == [{"tool_call_id": "r1", "name": "Route", "input": {"to": "x"}}]


async def test_an_agent_without_messages_in_its_updates_tells_its_tools_inputs() -> None:
    model = Streams(turns=[[CALL], ["it is 3"]])

    @entrypoint()
    async def agent(given: Any) -> Any:
        asked = await model.ainvoke("x")
        return await model.ainvoke([asked, await use(asked.tool_calls[0])])

    told = await told_by(agent)
    assert told.conversation == [("assistant", ""), ("tool", "3"), ("assistant", "it is 3")]
    assert [data["input"] for data in told.data("tool_start")] == [{"a": 2, "b": 1}]


async def test_a_call_id_may_be_used_again() -> None:
    told = await told_by(create_agent(Streams(turns=[[CALL], [CALL], ["done"]]), [add]))
    assert [role for role, _ in told.conversation] == ["assistant", "tool", "assistant", "tool", "assistant"]
    assert len(told.data("tool_end")) == 2
