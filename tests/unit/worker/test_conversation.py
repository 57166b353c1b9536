"""A stored conversation as a provider accepts it."""

from __future__ import annotations

from itertools import count
from typing import Any

from langchain_core.messages import AIMessage, ToolMessage

from tailrace.messages import Message, Role
from tailrace_worker.conversation import content_of, to_langchain

_times = count()


def message(role: Role, content: str = "", *calls: str, **fields: Any) -> Message:
    return Message(
        message_id=f"m{next(_times)}",
        session_id="s",
        run_id="r",
        timestamp=float(next(_times)),
        role=role,
        content=content,
        tool_calls=[{"id": call, "name": "f", "args": {}} for call in calls],
        **fields,
    )


def shown(*messages: Message) -> list[str]:
    return [f"{found.type}:{found.text}" for found in to_langchain(messages)]


def test_a_whole_conversation_stays_as_it_is() -> None:
    assert shown(
        message("user", "2+2?"),
        message("assistant", "", "c"),
        message("tool", "4", tool_call_id="c", name="f"),
        message("assistant", "It is 4."),
    ) == ["human:2+2?", "ai:", "tool:4", "ai:It is 4."]


def test_a_call_without_a_result_gets_one_that_says_so() -> None:
    given = to_langchain(
        [message("user", "go"), message("assistant", "", "c", "d"), message("user", "again")]
    )
    assert [found.type for found in given] == ["human", "ai", "tool", "tool", "human"]
    assert isinstance(given[2], ToolMessage)
    assert (given[2].tool_call_id, given[2].status) == ("c", "error")


def test_what_stands_between_a_call_and_its_result_is_put_behind_it() -> None:
    assert shown(
        message("user", "go"),
        message("assistant", "", "c"),
        message("assistant", "", status="error"),
        message("assistant", "meanwhile"),
        message("tool", "4", tool_call_id="c", name="f"),
    ) == ["human:go", "ai:", "tool:4", "ai:meanwhile"]


def test_a_result_of_a_later_run_answers_no_call_of_an_earlier_one() -> None:
    told = shown(
        message("user", "go"),
        message("assistant", "", "c"),
        message("user", "again"),
        message("assistant", "", "c"),
        message("tool", "4", tool_call_id="c", name="f"),
    )
    assert told == [
        "human:go",
        "ai:",
        "tool:The run ended before this tool did.",
        "human:again",
        "ai:",
        "tool:4",
    ]


def test_a_result_that_is_missing_has_an_id_that_stays() -> None:
    messages = [message("user", "go"), message("assistant", "", "c")]
    (*_, first), (*_, second) = to_langchain(messages), to_langchain(messages)
    assert first.id == second.id is not None


def test_a_failed_tool_is_given_back_as_one() -> None:
    (*_, good, bad) = to_langchain(
        [
            message("user", "go"),
            message("assistant", "", "c", "d"),
            message("tool", "4", tool_call_id="c", name="f"),
            message("tool", "no", tool_call_id="d", name="f", status="error"),
        ]
    )
    assert isinstance(good, ToolMessage)
    assert isinstance(bad, ToolMessage)
    assert (good.status, bad.status) == ("success", "error")


def test_what_a_cut_left_at_the_front_is_dropped() -> None:
    cut = (
        message("tool", "4", tool_call_id="c"),
        message("assistant", "It is 4."),
        message("user", "thanks"),
    )
    assert shown(*cut) == ["human:thanks"]


def test_empty_partial_messages_and_foreign_results_are_dropped() -> None:
    assert shown(
        message("user", "go"),
        message("assistant", "", status="error"),
        message("tool", "?", tool_call_id="nobody"),
        message("assistant", "half", status="cancelled"),
    ) == ["human:go", "ai:half"]


def test_a_call_whose_arguments_were_no_json_is_left_out() -> None:
    broken = message("assistant", "hm")
    broken.tool_calls.append({"id": "c", "name": "f", "args": "{nonsense"})
    (_, given) = to_langchain([message("user", "go"), broken])
    assert isinstance(given, AIMessage)
    assert given.tool_calls == []


def test_text_stands_before_other_parts() -> None:
    image = {"type": "image", "url": "u"}
    assert content_of("hi", []) == "hi"
    assert content_of("hi", [image]) == [{"type": "text", "text": "hi"}, image]
    assert content_of("", [image]) == [image]
