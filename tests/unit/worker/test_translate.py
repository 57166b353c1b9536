"""LangChain's streams, from real agents and as providers are known to deviate, as drafts and messages."""

from __future__ import annotations

import json
from itertools import groupby
from typing import Any

from langchain.agents import create_agent
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.messages.tool import invalid_tool_call
from langchain_core.tools import tool
from tests.records import a_run
from tests.unit.worker.models import Says

from tailrace.events import Draft
from tailrace.messages import Message
from tailrace_worker.envelope import Envelope
from tailrace_worker.offline_model import OfflineModel
from tailrace_worker.tracing import Trace
from tailrace_worker.translate import Translator

RUN = a_run(run_id="r", state="running")
Item = tuple[str, Any]


@tool
def calculator(expression: str) -> str:
    """Compute."""
    return f"={expression}"


class Told:
    """What a translator gave."""

    def __init__(self, *items: Item, translator: Translator | None = None, status: str = "complete") -> None:
        self.translator = translator or Translator(Envelope(RUN, Trace()))
        outputs = [output for mode, payload in items for output in self.translator.translate(mode, payload)]
        outputs += self.translator.close(status=status)
        self.drafts = [output for output in outputs if isinstance(output, Draft)]
        self.messages = [output for output in outputs if isinstance(output, Message)]

    @property
    def types(self) -> list[str]:
        return [kind for kind, _ in groupby(draft.event_type for draft in self.drafts)]

    def data(self, event_type: str) -> list[dict[str, Any]]:
        return [draft.data for draft in self.drafts if draft.event_type == event_type]


async def items_of(model: Any, prompt: str, *tools: Any) -> list[Item]:
    agent = create_agent(model, list(tools))
    modes: Any = ["messages", "updates", "custom"]
    stream: Any = agent.astream({"messages": [HumanMessage(prompt)]}, stream_mode=modes)
    return [item async for item in stream]


def chunk(content: Any = "", **fields: Any) -> Item:
    return "messages", (AIMessageChunk(content=content, **fields), {"langgraph_node": "model"})


ANSWER = ["message_start", "message_delta", "message_complete"]
CALL = ["message_start", "tool_args_delta", "message_complete", "tool_start", "tool_end", "message_complete"]


async def test_a_streamed_answer() -> None:
    told = Told(*await items_of(OfflineModel(tokens_per_second=1e6), "write 5 words"))
    assert told.types == ANSWER
    assert told.messages[0].content == "the river carries every word"
    assert {draft.message_id for draft in told.drafts} == {"r-1-1"}
    assert told.drafts[0].metadata == {"langgraph_node": "model"}
    assert told.translator.usage == {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}


async def test_offsets_count_code_points_and_deltas_join_to_the_content() -> None:
    text = "naïve 🎉👩‍👩‍👧 done\r\n\r\n<b>&\x00"
    told = Told(*(chunk(part, id="a") for part in text), chunk(id="a", chunk_position="last"))
    deltas = told.data("message_delta")
    assert [delta["offset"] for delta in deltas] == list(range(len(text)))
    assert "".join(delta["delta"] for delta in deltas) == told.messages[0].content == text


async def test_a_tool_call_of_a_real_agent() -> None:
    told = Told(*await items_of(OfflineModel(tokens_per_second=1e6), "what is 2+2?", calculator))
    assert told.types == [*CALL, *ANSWER]
    args = "".join(part["delta"] for part in told.data("tool_args_delta"))
    assert json.loads(args) == told.data("tool_start")[0]["input"] == {"expression": "2+2"}
    assert told.data("tool_end")[0]["output"] == "=2+2"
    assert [message.role for message in told.messages] == ["assistant", "tool", "assistant"]
    assert told.messages[1].tool_call_id == told.messages[0].tool_calls[0]["id"]


async def test_parallel_calls_do_not_mix() -> None:
    told = Told(
        *await items_of(OfflineModel(tokens_per_second=1e6), "what is 2+2 and, well, 3*3?", calculator)
    )
    by_call: dict[str, str] = {}
    for part in told.data("tool_args_delta"):
        by_call[part["tool_call_id"]] = by_call.get(part["tool_call_id"], "") + part["delta"]
    assert [json.loads(args)["expression"] for args in by_call.values()] == ["2+2", "3*3"]
    assert len(told.data("tool_start")) == len(told.data("tool_end")) == 2


async def test_a_model_that_does_not_stream() -> None:
    call = {"id": "c", "name": "calculator", "args": {"expression": "1"}}
    model = Says(messages=[AIMessage("Let me see.", tool_calls=[call]), AIMessage("one")])
    told = Told(*await items_of(model, "go", calculator))
    assert told.types == [*ANSWER[:2], *CALL[1:], *ANSWER]
    assert [message.content for message in told.messages] == ["Let me see.", "=1", "one"]


def test_reasoning_and_text_blocks_are_told_apart() -> None:
    told = Told(
        chunk(
            [{"type": "thinking", "thinking": "hm", "index": 0}],
            id="a",
            response_metadata={"model_provider": "anthropic"},
        ),
        chunk([{"type": "text", "text": "Yes", "index": 1}], id="a"),
        chunk([{"type": "text", "text": "No", "index": 4}], id="a"),
        chunk([], id="a", chunk_position="last"),
    )
    assert told.types == ["message_start", "reasoning_delta", *ANSWER[1:]]
    assert [(d["index"], d["offset"]) for d in told.data("message_delta")] == [(0, 0), (1, 3)]
    assert told.messages[0].content == "YesNo"


def test_reasoning_beside_the_content_is_told() -> None:
    told = Told(chunk("", id="a", additional_kwargs={"reasoning_content": "hm"}), chunk("Yes", id="a"))
    assert told.data("reasoning_delta") == [{"delta": "hm", "offset": 0}]


def test_chunks_without_an_id_belong_to_one_message_told_once() -> None:
    told = Told(
        chunk("a"),
        chunk(""),
        chunk("b"),
        chunk(chunk_position="last"),
        ("updates", {"model": {"messages": [AIMessage("ab", id="given-later")]}}),
        chunk("c"),
        ("updates", {"model": {"messages": [AIMessage("c", id="given-later-too")]}}),
    )
    assert [message.content for message in told.messages] == ["ab", "c"]


def test_only_the_first_chunk_may_be_named() -> None:
    told = Told(chunk("a", id="x"), chunk("b"), chunk("c"))
    assert [message.content for message in told.messages] == ["abc"]


def test_calls_that_share_an_index_do_not_mix() -> None:
    part = {"type": "tool_call_chunk", "name": "f", "index": 0, "args": "{"}
    rest = {**part, "name": None, "id": None, "args": "}"}
    told = Told(
        chunk(id="x", tool_call_chunks=[{**part, "id": "c"}]),
        chunk(id="x", tool_call_chunks=[{**part, "id": "d"}, rest]),
    )
    assert [part["tool_call_id"] for part in told.data("tool_args_delta")] == ["c", "d", "d"]


def test_call_chunks_with_neither_id_nor_index_continue_the_last_call() -> None:
    part = {"type": "tool_call_chunk", "name": None, "id": None, "index": None}
    told = Told(
        chunk(id="x", tool_call_chunks=[{**part, "name": "f", "id": "c", "args": '{"a":', "index": 0}]),
        chunk(id="x", tool_call_chunks=[{**part, "args": "1}"}]),
    )
    assert [(p["tool_call_id"], p["name"]) for p in told.data("tool_args_delta")] == [("c", "f"), ("c", "f")]


def test_a_call_with_broken_arguments_is_told_as_a_failed_tool() -> None:
    part = {"type": "tool_call_chunk", "name": "f", "id": "c", "index": 0, "args": '{"a": nonsense'}
    broken = invalid_tool_call(name="f", id="c", args='{"a": nonsense')
    whole = AIMessage("", id="x", invalid_tool_calls=[broken])
    told = Told(chunk(id="x", tool_call_chunks=[part]), ("updates", {"model": {"messages": [whole]}}))
    assert told.types == [*CALL[:5]]
    assert told.data("tool_end")[0]["status"] == "error"


def test_a_run_that_breaks_off_closes_what_is_open() -> None:
    call = {"id": "c", "name": "f", "args": {}}
    told = Told(
        ("updates", {"model": {"messages": [AIMessage("", id="x", tool_calls=[call])]}}),
        chunk("half an ans", id="y"),
        status="cancelled",
    )
    assert told.data("message_complete")[-1]["status"] == "cancelled"
    assert told.data("tool_end")[0]["status"] == "error"


def test_a_message_that_nothing_ended_is_broken_off_in_a_run_that_succeeds() -> None:
    told = Told(chunk("half an ans", id="y"))
    assert told.data("message_complete")[-1]["status"] == told.messages[0].status == "error"
    assert told.translator.answer == ""


def test_a_tool_that_failed_is_kept_as_one() -> None:
    call = {"id": "c", "name": "f", "args": {}}
    told = Told(
        ("updates", {"model": {"messages": [AIMessage("", id="x", tool_calls=[call])]}}),
        ("messages", (ToolMessage("no", tool_call_id="c", id="t", status="error"), {})),
    )
    assert told.messages[-1].status == told.data("message_complete")[-1]["status"] == "error"


def test_a_result_comes_by_two_ways_and_is_told_once() -> None:
    call = {"id": "c", "name": "f", "args": {}}
    result = ToolMessage(
        [{"type": "text", "text": "seen"}, {"type": "image", "url": "u"}], tool_call_id="c", id="t"
    )
    told = Told(
        ("updates", {"model": {"messages": [AIMessage("", id="x", tool_calls=[call])]}}),
        ("messages", (result, {})),
        ("updates", {"tools": {"messages": [result]}}),
        ("updates", {"tools": None}),
    )
    assert len(told.data("tool_end")) == 1
    assert told.messages[-1].content == "seen"
    assert len(told.messages[-1].content_parts) == 2


def test_messages_from_before_the_run_are_not_told_again() -> None:
    translator = Translator(Envelope(RUN, Trace()), known_ids=frozenset(["old"]))
    told = Told(("updates", {"trim": {"messages": [AIMessage("old", id="old")]}}), translator=translator)
    assert told.drafts == []


def test_progress_of_one_of_several_tools_is_nobodys_unless_it_says_whose() -> None:
    calls: list[Any] = [{"id": name, "name": "f", "args": {}} for name in ("c", "d")]
    result = ToolMessage("done", tool_call_id="c", id="t")
    report = {"type": "tool_progress", "progress": 1}
    told = Told(
        ("updates", {"model": {"messages": [AIMessage("", id="x", tool_calls=calls)]}}),
        ("custom", report),
        ("custom", {**report, "tool_call_id": "c"}),
        ("messages", (result, {})),
        ("custom", report),
    )
    assert [data["tool_call_id"] for data in told.data("tool_progress")] == ["", "c", "d"]


def test_custom_values_become_what_they_say_they_are() -> None:
    told = Told(
        ("custom", {"type": "progress", "done": 1, "of": 3}),
        ("custom", {"type": "file_change", "value": "a.txt"}),
        ("custom", {"type": "tool_progress", "tool_call_id": "c", "progress": 0.5}),
        ("custom", {"type": "finish", "status": "success"}),
        ("custom", None),
    )
    assert told.types == ["progress", "file_change", "tool_progress", "custom"]
    assert [draft.data for draft in told.drafts] == [
        {"value": {"done": 1, "of": 3}},
        {"value": "a.txt"},
        {"tool_call_id": "c", "progress": 0.5},
        {"value": {"type": "finish", "status": "success"}},
        {"value": None},
    ]
