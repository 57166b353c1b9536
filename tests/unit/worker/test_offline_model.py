"""The offline demo model: what it decides, and how it streams."""

from __future__ import annotations

import time
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage, ToolMessage

from tailrace_worker.offline_model import OfflineModel, OfflineModelFailed
from tailrace_worker.offline_rules import decide

TOOLS = ("calculator", "clock", "notes")


def calls(prompt: str) -> list[tuple[str, dict[str, Any]]]:
    return [(call["name"], call["args"]) for call in decide([HumanMessage(prompt)], TOOLS).tool_calls]


@pytest.mark.parametrize(
    ("prompt", "expected"),
    [
        ("what is 12*(3+4)?", [("calculator", {"expression": "12*(3+4)"})]),
        ("time in Europe/Berlin please", [("clock", {"timezone": "Europe/Berlin"})]),
        (
            "what time is it in New York and in Tokyo?",
            [("clock", {"timezone": "America/New_York"}), ("clock", {"timezone": "Asia/Tokyo"})],
        ),
        ("what day is it?", [("clock", {"timezone": "UTC"})]),
        ("Remember that 2+2 is 4", [("notes", {"action": "add", "text": "2+2 is 4"})]),
        ("note: buy tea", [("notes", {"action": "add", "text": "buy tea"})]),
        ("what did I note?", [("notes", {"action": "list"})]),
        ("show my notes", [("notes", {"action": "list"})]),
        ("please clear my notes", [("notes", {"action": "clear"})]),
        ("a 3-year-old in 2024", []),
        ("hello", []),
        ("", []),
    ],
)
def test_the_prompt_decides_which_tools_are_called(
    prompt: str, expected: list[tuple[str, dict[str, Any]]]
) -> None:
    assert calls(prompt) == expected


def test_a_tool_that_is_not_bound_is_not_called() -> None:
    assert decide([HumanMessage("what is 2+2?")], ()).tool_calls == ()


def test_it_says_what_it_is_and_how_much_it_sees() -> None:
    earlier: list[BaseMessage] = [HumanMessage("one"), AIMessage("two")]
    text = decide([*earlier, HumanMessage("three")], TOOLS).text
    assert "offline demo model" in text
    assert "“three”" in text
    assert "2 earlier messages" in text


def test_it_quotes_the_previous_prompt() -> None:
    conversation = [HumanMessage("I like tea"), AIMessage("ok"), HumanMessage("what did I say before?")]
    assert "“I like tea”" in decide(conversation, TOOLS).text


def test_it_answers_with_the_results_of_its_tools() -> None:
    call = {"id": "c", "name": "calculator", "args": {}}
    conversation = [
        HumanMessage("2+2?"),
        AIMessage("", tool_calls=[call]),
        ToolMessage("4", tool_call_id="c", name="calculator"),
    ]
    assert decide(conversation, TOOLS).text == "The calculator tool says: 4"


def test_a_prompt_of_megabytes_is_decided_at_once() -> None:
    started = time.perf_counter()
    decide([HumanMessage("(1+" * 1_000_000)], TOOLS)
    assert time.perf_counter() - started < 1


def test_call_ids_differ_from_turn_to_turn_and_not_from_try_to_try() -> None:
    first = [HumanMessage("2+2?")]
    second = [*first, AIMessage("4"), HumanMessage("2+2?")]
    ids = [decide(turn, TOOLS).tool_calls[0]["id"] for turn in (first, first, second)]
    assert ids[0] == ids[1] != ids[2]


async def test_it_streams_word_by_word_with_usage_at_the_end() -> None:
    model = OfflineModel(tokens_per_second=1e6)
    chunks = [chunk async for chunk in model.astream("write 7 words")]
    assert [chunk.text for chunk in chunks[:3]] == ["the", " river", " carries"]
    assert isinstance(chunks[-1], AIMessageChunk)
    assert chunks[-1].usage_metadata == {"input_tokens": 3, "output_tokens": 7, "total_tokens": 10}


async def test_streamed_and_whole_answers_agree() -> None:
    model = OfflineModel(tokens_per_second=1e6).bind_tools(
        [{"name": name, "description": name, "parameters": {}} for name in TOOLS]
    )
    for prompt in ("what is 2+2 and the time in Paris?", "hello"):
        whole = await model.ainvoke(prompt)
        joined: Any = None
        async for chunk in model.astream(prompt):
            joined = chunk if joined is None else joined + chunk
        assert joined.text == whole.text
        assert joined.tool_calls == whole.tool_calls


def test_it_streams_in_a_blocking_loop_too() -> None:
    model = OfflineModel(tokens_per_second=1e6)
    assert "".join(chunk.text for chunk in model.stream("write 3 words")) == "the river carries"


async def test_it_keeps_a_human_pace() -> None:
    started = time.perf_counter()
    await OfflineModel(tokens_per_second=100).ainvoke("write 20 words")
    streamed = [chunk async for chunk in OfflineModel(tokens_per_second=100).astream("write 20 words")]
    assert len(streamed) >= 20
    assert time.perf_counter() - started >= 0.2


@pytest.mark.parametrize("prompt", ["please fail", "please fail later"])
async def test_it_fails_when_asked_to(prompt: str) -> None:
    with pytest.raises(OfflineModelFailed):
        async for _ in OfflineModel(tokens_per_second=1e6).astream(prompt):
            pass
