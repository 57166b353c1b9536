"""Runs traced by Langfuse, from real processes to a real receiver of OTLP: events and spans tell the same."""

from __future__ import annotations

import asyncio
import base64
import os
import signal
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from playwright.async_api import expect
from tests.e2e.otlp import Receiver, Span, receiver
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Reader, Stack, until
from tests.e2e.test_page import ask, chromium, has_finished, watched_page
from tests.e2e.test_recovery import processes

from tailrace.runs import root_observation

SECRET = "sk-lf-never-to-be-logged"
LONG = "write 2000 words"


@pytest.fixture(scope="module")
def langfuse() -> Iterator[Receiver]:
    with receiver() as server:
        yield server


@pytest.fixture(scope="module")
def traced_stack(mongo_url: str, redis_url: str, langfuse: Receiver) -> Iterator[Stack]:
    settings = msgspec.structs.replace(
        shared_settings(mongo_url, redis_url),
        offline_tokens_per_second=200.0,
        max_attempts=2,
        dev_user="alice",
        log_level="debug",
        langfuse_enabled=True,
        langfuse_public_key="pk-lf-test",
        langfuse_secret_key=SECRET,
        langfuse_host=langfuse.url,
        langfuse_project_id="proj",
    )
    with Stack(settings) as stack:
        yield stack


@pytest.fixture
def stack(traced_stack: Stack, langfuse: Receiver) -> Iterator[Stack]:
    yield traced_stack
    langfuse.mode = "take"


@pytest.fixture
def sid() -> str:
    return f"s{uuid4().hex[:8]}"


class Told:
    """A finished run as the API tells it, and as its trace does."""

    def __init__(self, reader: Reader, langfuse: Receiver) -> None:
        self.events = [frame.json for frame in reader.events]
        self.run_id: str = self.events[0]["run_id"]
        self.spans = langfuse.of(self.run_id)

    def root(self, attempt: int = 1) -> Span:
        return self.spans[root_observation(self.run_id, attempt)]

    def of(self, *types: str) -> list[dict[str, Any]]:
        return [event for event in self.events if event["event_type"] in types]

    def spans_of(self, *types: str) -> list[Span]:
        return [self.spans[event["observation_id"]] for event in self.of(*types)]

    def check_tree(self) -> None:
        """One root, and every other span below it."""
        assert [span.span_id for span in self.spans.values() if not span.parent_id] == [self.root().span_id]
        for span in self.spans.values():
            assert not span.parent_id or span.parent_id in self.spans
            assert self.root().start <= span.start <= span.end <= self.root().end

    def check_ranges(self) -> None:
        """Every event names its span, and every span the range of its events."""
        ranges: dict[str, list[int]] = {}
        for event in self.events:
            assert event["trace_id"] == self.run_id
            ranges.setdefault(event["observation_id"], []).append(event["seq"])
        assert ranges.keys() <= self.spans.keys()
        ranges[self.root().span_id] += [event["seq"] for event in self.events]
        for span_id, span in self.spans.items():
            given = [span.metadata("tailrace.seq_first"), span.metadata("tailrace.seq_last")]
            seqs = ranges.get(span_id)
            assert given == ([min(seqs), max(seqs)] if seqs else [None, None]), span.name


async def traced(stack: Stack, langfuse: Receiver, reader: Reader, *, attempt: int = 1) -> Told:
    """The run that the reader has read, once its last root has come."""
    run_id = reader.events[0].json["run_id"]
    await until(lambda: root_observation(run_id, attempt) in langfuse.of(run_id))
    return Told(reader, langfuse)


async def get(stack: Stack, session: str, path: str) -> Any:
    async with stack.client() as client:
        return (await client.get(f"/api/apps/{session}/agent/{path}")).json()


async def reading(stack: Stack, sid: str) -> tuple[Reader, asyncio.Task[None]]:
    """A reader of a run that is in the middle of its answer."""
    reader = stack.reader(sid)
    task = asyncio.create_task(reader.generate(LONG))
    await until(lambda: sum(frame.event == "delta" for frame in reader.frames) >= 20)
    return reader, task


async def test_events_and_spans_tell_of_each_other(stack: Stack, sid: str, langfuse: Receiver) -> None:
    reader = stack.reader(sid)
    await reader.generate("what time is it in Tokyo and Paris?")
    told = await traced(stack, langfuse, reader)
    told.check_tree()
    told.check_ranges()
    assert {span.kind for span in told.spans_of("message_delta", "message_start")} == {"generation"}
    assert {span.kind for span in told.spans_of("tool_start", "tool_end")} == {"tool"}
    of_the_run = ("run_queued", "agent_start", "agent_end", "finish")
    assert {span.kind for span in told.spans_of(*of_the_run)} == {"agent"}
    tools = {event["tool_call_id"]: event["observation_id"] for event in told.of("tool_start")}
    assert tools == {event["tool_call_id"]: event["observation_id"] for event in told.of("tool_end")}
    assert len(set(tools.values())) == 2
    messages = (await get(stack, sid, "messages"))["messages"]
    completed = {event["message_id"]: event["observation_id"] for event in told.of("message_complete")}
    assert {message["message_id"]: message["observation_id"] for message in messages} == completed
    assert {message["trace_id"] for message in messages} == {told.run_id}


async def test_a_trace_says_whose_it_is_and_what_was_asked_and_answered(
    stack: Stack, sid: str, langfuse: Receiver
) -> None:
    reader = stack.reader(sid)
    await reader.generate("what is 12*(3+4)?")
    told = await traced(stack, langfuse, reader)
    for span in told.spans.values():
        assert (span.attributes["user.id"], span.attributes["session.id"]) == ("alice", sid)
        assert set(span.attributes["langfuse.trace.tags"]) >= {"agent:default", "attempt:1"}
        assert span.level == "DEFAULT"
    root = told.root().attributes
    for of in ("observation", "trace"):
        assert root[f"langfuse.{of}.input"] == "what is 12*(3+4)?"
        assert root[f"langfuse.{of}.output"] == reader.text == "The calculator tool says: 84"
    assert (told.root().metadata("tailrace.attempt"), told.root().metadata("tailrace.status")) == (
        1,
        "success",
    )
    key = base64.b64encode(f"pk-lf-test:{SECRET}".encode()).decode()
    assert langfuse.authorizations == {f"Basic {key}"}


async def test_a_run_links_to_its_trace(stack: Stack, sid: str, langfuse: Receiver) -> None:
    async with stack.client() as client:
        headers = {"Prefer": "respond-async", "Idempotency-Key": "once"}
        path = f"/api/apps/{sid}/agent/generate"
        asked = [await client.post(path, json={"prompt": "hello"}, headers=headers) for _ in range(2)]
    (run_id,) = {answer.json()["run_id"] for answer in asked}
    run = await get(stack, sid, f"runs/{run_id}")
    assert run["trace_id"] == run_id
    assert run["trace_url"] == f"{langfuse.url}/project/proj/traces/{run_id}"
    assert [found["trace_url"] for found in (await get(stack, sid, "runs"))["runs"]] == [run["trace_url"]]


async def test_a_cancelled_run_leaves_a_whole_trace(stack: Stack, sid: str, langfuse: Receiver) -> None:
    reader, task = await reading(stack, sid)
    async with stack.client() as client:
        await client.post(f"/api/apps/{sid}/agent/cancel")
    await asyncio.wait_for(task, 60)
    told = await traced(stack, langfuse, reader)
    told.check_tree()
    told.check_ranges()
    assert {span.level for span in told.spans_of("message_delta")} == {"WARNING"}
    assert all(span.said for span in told.spans_of("message_delta"))
    assert (told.root().level, told.root().said) == ("WARNING", "The run ended: cancelled.")
    assert told.root().attributes["langfuse.trace.output"] == reader.text


async def test_a_failed_run_says_why_in_its_trace(stack: Stack, sid: str, langfuse: Receiver) -> None:
    reader = stack.reader(sid)
    await reader.generate("please fail later")
    told = await traced(stack, langfuse, reader)
    told.check_tree()
    told.check_ranges()
    (error,) = told.of("run_error")
    assert (told.root().level, told.root().said) == ("ERROR", error["message"])
    assert {span.level for span in told.spans_of("message_delta")} == {"ERROR"}


async def test_lost_attempts_are_told_in_the_same_trace(stack: Stack, sid: str, langfuse: Receiver) -> None:
    reader, task = await reading(stack, sid)
    ((first, _),) = processes(stack).items()
    os.kill(first, signal.SIGKILL)
    await until(lambda: sum(frame.json.get("attempt") == 2 for frame in reader.events) > 10)
    ((second, _),) = processes(stack).items()
    os.kill(second, signal.SIGKILL)
    await asyncio.wait_for(task, 60)
    told = await traced(stack, langfuse, reader, attempt=2)
    assert {event["trace_id"] for event in told.events} == {told.run_id}
    # Of the first tells the second, if it lived long enough to send it; of the last, the worker.
    assert (told.root(2).level, told.root(2).metadata("tailrace.status")) == ("ERROR", "lost")
    assert "SIGKILL" in told.root(2).said


async def test_the_next_attempt_links_to_the_lost_one(stack: Stack, sid: str, langfuse: Receiver) -> None:
    reader = stack.reader(sid)
    task = asyncio.create_task(reader.generate("write 300 words"))
    await until(lambda: sum(frame.event == "delta" for frame in reader.frames) >= 20)
    ((horse, _),) = processes(stack).items()
    os.kill(horse, signal.SIGKILL)
    await asyncio.wait_for(task, 60)
    told = await traced(stack, langfuse, reader, attempt=2)
    assert {event["observation_id"] for event in told.events if event["attempt"] == 2} <= told.spans.keys()
    lost, last = told.root(1), told.root(2)
    assert (lost.level, lost.metadata("tailrace.status")) == ("ERROR", "lost")
    assert "without a finish" in lost.said
    assert last.links == (lost.span_id,)
    assert lost.start < lost.end <= last.end
    (superseded,) = told.of("attempt_superseded")
    assert last.metadata("tailrace.seq_first") == superseded["seq"]
    assert last.attributes["langfuse.trace.output"] == told.of("message_complete")[-1]["content"]


@pytest.mark.parametrize("mode", ["refuse", "hang"])
async def test_runs_go_on_while_langfuse_does_not(
    stack: Stack, sid: str, langfuse: Receiver, mode: Any
) -> None:
    langfuse.mode = mode
    before = langfuse.requests
    for prompt in ("what is 6*7?", "hello"):  # the one worker comes free again
        reader = stack.reader(sid)
        await reader.generate(prompt)
        assert reader.events[-1].json["status"] == "success"
    assert langfuse.requests > before


async def test_no_log_holds_the_secret(stack: Stack) -> None:
    for child in (stack.api, stack.worker):
        logged = child.log.read_text(encoding="utf-8")
        assert logged
        for secret in (SECRET, base64.b64encode(f"pk-lf-test:{SECRET}".encode()).decode()):
            assert secret not in logged


async def test_the_page_links_each_run_to_its_trace(stack: Stack, langfuse: Receiver) -> None:
    async with chromium() as browser, watched_page(browser, stack.url) as page:
        for prompt in ("hello", "what is 6*7?"):
            await ask(page, prompt)
            await has_finished(page)
        session = page.url.partition("#")[2]
        runs = (await get(stack, session, "runs"))["runs"]
        await expect(page.get_by_test_id("trace")).to_have_count(2)
        links = [await link.get_attribute("href") for link in await page.get_by_test_id("trace").all()]
        assert links == [run["trace_url"] for run in reversed(runs)]
