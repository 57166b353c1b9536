"""A run from its job to its finish, against a real MongoDB."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from itertools import pairwise

import msgspec
import pytest
from tests.integration.worker.scene import Scene, only, said, types

from tailrace.messages import Message, Messages
from tailrace.mongo import Database
from tailrace.runs import Runs
from tailrace.sessions import Sessions
from tailrace.settings import Settings
from tailrace_worker.job import perform, perform_run

NAMES = (
    "refused",
    "raising",
    "with_tool",
    "failing_factory",
    "no_agent",
    "later",
    "missing",
    "witness",
    "threads",
    "team",
)
AGENTS = ",".join(f"{name}=tests.integration.worker.agents:{name}" for name in NAMES)
ANSWER = ["message_start", "message_delta", "message_complete"]
TOOL = ["message_start", "tool_args_delta", "message_complete", "tool_start", "tool_end", "message_complete"]
BEGIN = ["agent_start", "message_complete"]


@pytest.fixture
def scene(settings: Settings, database: Database) -> Scene:
    return Scene(settings, database, agents=AGENTS)


async def test_an_answer_is_told_from_start_to_finish(scene: Scene) -> None:
    events = await scene.perform("hello")
    assert types(events) == [*BEGIN, *ANSWER, "agent_end", "finish"]
    assert "offline demo model" in said(events)
    finish = events[-1]
    assert (finish.data["status"], finish.data["last_seq"]) == ("success", finish.seq)
    run = await scene.run(finish.run_id)
    assert (run.state, run.active, run.last_seq) == ("success", False, finish.seq)
    assert await Sessions(scene.database).last_seq("s1") == finish.seq
    assert only(events, "agent_end").data["usage"]["output_tokens"] > 10


async def test_an_agent_within_a_graph_is_told_as_it_goes_on(scene: Scene) -> None:
    events = await scene.perform("write 5 words", agent="team")
    assert types(events) == [*BEGIN, *ANSWER, "agent_end", "finish"]
    assert len([event for event in events if event.event_type == "message_delta"]) > 1


async def test_messages_are_stored_and_chained(scene: Scene) -> None:
    events = await scene.perform("what is 12*(3+4)?")
    messages = await scene.messages()
    assert [message.role for message in messages] == ["user", "assistant", "tool", "assistant"]
    assert [message.parent_id for message in messages[1:]] == [m.message_id for m in messages[:-1]]
    assert all(a.timestamp < b.timestamp for a, b in pairwise(messages))
    completed = [event for event in events if event.event_type == "message_complete"]
    assert [event.message_id for event in completed] == [message.message_id for message in messages]
    assert messages[-1].content == said(events) == "The calculator tool says: 84"


async def test_a_tool_call_is_told_in_order(scene: Scene) -> None:
    events = await scene.perform("what is 12*(3+4)?")
    assert types(events) == [*BEGIN, *TOOL, *ANSWER, "agent_end", "finish"]
    start, end = only(events, "tool_start"), only(events, "tool_end")
    assert start.data["input"] == {"expression": "12*(3+4)"}
    assert (end.data["output"], end.data["status"]) == ("84", "success")
    asked = next(event for event in events if event.event_type == "message_start")
    assert start.message_id == end.message_id == asked.message_id


async def test_events_know_the_langchain_runs_they_came_from(scene: Scene) -> None:
    events = await scene.perform("what is 12*(3+4)?")
    model, end = next(e for e in events if e.event_type == "message_start"), only(events, "tool_end")
    assert len(model.parent_ids) >= 2
    assert len(end.parent_ids) >= 2
    assert model.parent_ids[0] == end.parent_ids[0]  # the agent itself
    assert model.parent_ids != end.parent_ids


async def test_two_tools_run_at_once(scene: Scene) -> None:
    events = await scene.perform("what time is it in Tokyo and Paris?")
    kinds = [event.event_type for event in events if event.event_type in ("tool_start", "tool_end")]
    assert kinds == ["tool_start", "tool_start", "tool_end", "tool_end"]
    assert "Asia/Tokyo" in said(events)
    assert "Europe/Paris" in said(events)


async def test_notes_are_kept_for_the_session_alone(scene: Scene) -> None:
    await scene.perform("remember that tea is at four")
    assert "1. tea is at four" in said(await scene.perform("what did I note?"))
    scene.session_id = "s2"
    assert "no notes yet" in said(await scene.perform("what did I note?"))


async def test_a_new_prompt_continues_the_conversation(scene: Scene) -> None:
    await scene.perform("my name is Ada")
    events = await scene.perform("what did I say before?")
    assert "my name is Ada" in said(events)
    assert events[0].seq > 1


async def test_only_the_newest_messages_are_given_to_the_agent(scene: Scene) -> None:
    scene.settings = msgspec.structs.replace(scene.settings, history_messages=0)
    await scene.perform("my name is Ada")
    assert "nothing before this" in said(await scene.perform("what did I say before?"))


async def test_reasoning_is_told_apart(scene: Scene) -> None:
    events = await scene.perform("think about rivers")
    assert "reasoning_delta" in types(events)
    assert said(events).startswith("I am Tailrace's offline demo model")


async def test_a_model_that_fails_ends_in_an_error_a_person_understands(scene: Scene) -> None:
    events = await scene.perform("please fail")
    assert types(events) == [*BEGIN, "run_error", "agent_end", "finish"]
    error = only(events, "run_error").data
    assert error["message"].endswith("You asked the offline demo model to fail, and it did.")
    assert "Traceback" not in error["message"]
    assert events[-1].data["status"] == "error"
    assert (await scene.run(events[0].run_id)).error == error["message"]


async def test_the_answer_so_far_is_kept_when_a_model_breaks_off(scene: Scene) -> None:
    events = await scene.perform("please fail later")
    assert types(events) == [*BEGIN, *ANSWER, "run_error", "agent_end", "finish"]
    partial = (await scene.messages())[-1]
    assert (partial.status, partial.content) == ("error", said(events))
    assert types(await scene.perform("hello"))[-1] == "finish"


async def test_a_tool_that_fails_does_not_end_the_agent(scene: Scene) -> None:
    events = await scene.perform("broken", agent="with_tool")
    end = only(events, "tool_end").data
    assert end["status"] == "error"
    assert "the disk is <b>full</b>" in end["output"]
    assert "the disk is" in said(events)
    assert events[-1].data["status"] == "success"


async def test_the_calculator_refuses_as_a_tool_result(scene: Scene) -> None:
    events = await scene.perform("what is 9**9**9?")
    assert only(events, "tool_end").data["status"] == "error"
    assert "more than 2000 digits" in said(events)
    assert events[-1].data["status"] == "success"


async def test_a_tool_runs_when_a_majority_has_its_start(scene: Scene) -> None:
    events = await scene.perform("hello", agent="witness")
    assert [event.data["value"] for event in events if event.event_type == "custom"][-1] == "tool_start"


async def test_what_a_tool_reports_is_told(scene: Scene) -> None:
    events = await scene.perform("reporting", agent="with_tool")
    assert only(events, "progress").data == {"value": 0.5}
    assert only(events, "tool_progress").data == {"tool_call_id": "call_1", "progress": "half"}
    assert only(events, "file_change").data == {"value": {"path": "a.txt", "change": "created"}}
    assert only(events, "custom").data == {"value": ["anything", "else"]}


async def test_values_that_mongodb_refuses_are_carried(scene: Scene) -> None:
    events = await scene.perform("go", agent="refused")
    assert sum(event.event_type == "custom" for event in events) == 9
    assert events[-1].data["status"] == "success"


@pytest.mark.parametrize(
    "prompt",
    [
        "recursion",
        "overflow",
        "unicode",
        "exit",
        "group",
        "cancelled",
        "interrupt",
        "timeout",
        "no str",
        "surrogate",
    ],
)
async def test_any_exception_ends_in_one_finish(
    scene: Scene, prompt: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL, logger="tailrace_worker")  # the test runner cannot carry a surrogate
    events = await scene.perform(prompt, agent="raising")
    assert types(events) == [*BEGIN, "run_error", "agent_end", "finish"]
    assert events[-1].data["status"] == "error"
    run = await scene.run(events[0].run_id)
    assert (run.state, run.attempt) == ("error", 1)
    assert run.error == only(events, "run_error").data["message"]


@pytest.mark.parametrize(
    ("agent", "code", "says"),
    [
        ("nobody", "unknown_agent", "Known agents: default,"),
        ("missing", "agent_unavailable", "TAILRACE_AGENTS"),
        ("failing_factory", "agent_unavailable", "no configuration"),
        ("no_agent", "agent_unavailable", "astream"),
    ],
)
async def test_an_agent_that_cannot_be_had_is_named(scene: Scene, agent: str, code: str, says: str) -> None:
    error = only(await scene.perform("hello", agent=agent), "run_error").data
    assert error["code"] == code
    assert says in error["message"]


async def test_a_factory_may_be_asynchronous(scene: Scene) -> None:
    assert only(await scene.perform("hello", agent="later"), "custom").data == {"value": "hello"}


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("anthropic:claude-x", "langchain-anthropic"),
        ("openai:gpt-x", "OPENAI_API_KEY"),
        ("nonsense", "provider"),
    ],
)
async def test_a_missing_package_or_key_is_named(
    scene: Scene, model: str, says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    error = only(await scene.perform("hello", model=model), "run_error").data
    assert error["code"] == "model_unavailable"
    assert says in error["message"]


async def test_a_checkpointer_begins_afresh_in_each_attempt(scene: Scene) -> None:
    first, second = [
        only(await scene.perform("go", agent="threads", run_id=f"r{nth}", attempt=nth), "custom")
        for nth in (1, 2)
    ]
    assert (first.data["value"], second.data["value"]) == ("r1-1", "r2-2")


async def test_a_run_that_takes_too_long_times_out(scene: Scene) -> None:
    scene.settings = msgspec.structs.replace(
        scene.settings, run_timeout_seconds=2.0, offline_tokens_per_second=50.0
    )
    events = await scene.perform("write 5000 words")
    assert types(events) == [*BEGIN, *ANSWER, "run_error", "agent_end", "finish"]
    assert events[-1].data["status"] == "timeout"
    assert only(events, "run_error").data["code"] == "timeout"
    assert (await scene.messages())[-1].content == said(events)


async def test_a_cancelled_run_keeps_its_partial_answer(scene: Scene) -> None:
    scene.settings = msgspec.structs.replace(scene.settings, offline_tokens_per_second=100.0)
    run = await scene.queue("write 5000 words")
    task = asyncio.create_task(perform_run(scene.settings, scene.database, "s1", run.run_id))
    while "message_delta" not in types(await scene.events()):
        assert not task.done()
    task.cancel()
    await task
    events = await scene.events()
    assert types(events) == [*BEGIN, *ANSWER, "agent_end", "finish"]
    assert events[-1].data["status"] == "cancelled"
    assert (await scene.messages())[-1].status == "cancelled"


async def test_a_run_taken_away_writes_nothing_more(scene: Scene) -> None:
    scene.settings = msgspec.structs.replace(scene.settings, offline_tokens_per_second=200.0)
    run = await scene.queue("write 100 words")
    task = asyncio.create_task(perform_run(scene.settings, scene.database, "s1", run.run_id))
    while "message_delta" not in types(await scene.events()):
        assert not task.done()
    await Runs(scene.database).end(run, status="lost", last_seq=0, error=None)
    await task
    assert "finish" not in types(await scene.events())


async def test_a_run_is_performed_once(scene: Scene) -> None:
    run = await scene.queue("hello")
    both = (perform_run(scene.settings, scene.database, "s1", run.run_id) for _ in range(2))
    await asyncio.gather(*both)
    assert sum(event.event_type == "finish" for event in await scene.events()) == 1


async def test_a_run_of_another_session_is_not_touched(scene: Scene) -> None:
    run = await scene.queue("hello")
    await perform_run(scene.settings, scene.database, "other", run.run_id)
    assert (await scene.run(run.run_id)).state == "queued"


async def test_message_times_increase_under_a_clock_that_went_back(scene: Scene) -> None:
    ahead = time.time() + 300
    earlier = Message(
        message_id="m", session_id="s1", run_id="r", timestamp=ahead, role="user", content="earlier"
    )
    await Messages(scene.database).add(earlier)
    await scene.perform("hello")
    messages = await scene.messages()
    assert messages[0].content == "earlier"
    assert all(a.timestamp < b.timestamp for a, b in pairwise(messages))


async def test_multimodal_content_reaches_the_model(scene: Scene) -> None:
    parts = [
        {"type": "text", "text": "what is in it?"},
        {"type": "image", "url": "https://example.test/a.png"},
    ]
    events = await scene.perform("", content_parts=parts)
    assert "what is in it?" in said(events)
    assert (await scene.messages())[0].content_parts == parts


def test_a_tool_that_exits_the_process_ends_the_run_and_not_the_horse(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RQ calls it: settings from the environment, a loop of its own."""
    changed = msgspec.structs.replace(settings, agents=AGENTS)
    for name, value in changed.to_env().items():
        monkeypatch.setenv(name, value)
    ended: list[str] = []

    async def prepare() -> str:
        from tailrace.mongo import connect

        async with connect(changed) as database:
            return (await Scene(changed, database).queue("leave", agent="with_tool")).run_id

    async def look() -> list[str]:
        from tailrace.mongo import connect

        async with connect(changed) as database:
            return types(await Scene(changed, database).events())

    run_id = asyncio.run(prepare())

    def horse() -> None:
        perform("s1", run_id)
        ended.append("returned")

    thread = threading.Thread(target=horse)
    thread.start()
    thread.join(30)
    assert ended == ["returned"]
    assert asyncio.run(look())[-4:] == ["tool_end", "run_error", "agent_end", "finish"]


async def test_a_malformed_registry_is_named(scene: Scene) -> None:
    scene.settings = msgspec.structs.replace(scene.settings, agents="support")
    message = only(await scene.perform("hello"), "run_error").data["message"]
    assert "TAILRACE_AGENTS='support'" in message
