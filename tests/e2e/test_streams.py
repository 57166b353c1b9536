"""The whole path, over real processes: a prompt in, its run by a worker, its events out to every reader."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Iterator
from uuid import uuid4

import msgspec
import pytest
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Reader, Stack, until

PATH = "/api/apps/{}/agent"


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    """One deployment for the module, with three workers: it takes seconds to start."""
    settings = msgspec.structs.replace(shared_settings(mongo_url, redis_url), offline_tokens_per_second=300.0)
    with Stack(settings, workers=3) as stack:
        yield stack


@pytest.fixture
def sid() -> str:
    """A session that no other test has seen."""
    return f"s{uuid4().hex[:8]}"


async def test_a_prompt_is_streamed_from_queued_to_finish(stack: Stack, sid: str) -> None:
    reader = stack.reader(sid)
    await reader.generate("What is 6 * 7?")
    assert reader.frames[0].event == "stream.ready"
    assert reader.frames[0].id is None
    types = [frame.json["event_type"] for frame in reader.events]
    assert types[:3] == ["run_queued", "agent_start", "message_complete"]
    assert types[-2:] == ["agent_end", "finish"]
    assert {"tool_start", "tool_end", "message_start", "message_delta"} <= set(types)
    assert reader.seqs == list(range(1, len(types) + 1))
    assert reader.events[-1].json["status"] == "success"
    assert reader.events[-1].json["last_seq"] == len(types)
    assert "42" in reader.text


async def test_every_reader_gets_the_same_bytes_live_and_replayed(stack: Stack, sid: str) -> None:
    live = stack.reader(sid)
    await live.generate("Tell me something")
    replayed = stack.reader(sid)
    await replayed.read()
    assert [frame.data for frame in replayed.events] == [frame.data for frame in live.events]
    assert [frame.id for frame in replayed.events] == [frame.id for frame in live.events]
    async with stack.client() as client:
        page = (await client.get(PATH.format(sid) + "/events")).json()["events"]
    assert page == [frame.json for frame in live.events]


async def test_the_headers_are_those_of_an_unbuffered_event_stream(stack: Stack, sid: str) -> None:
    async with (
        stack.client() as client,
        client.stream("POST", PATH.format(sid) + "/generate", json={"prompt": "Hello"}) as answer,
    ):
        headers = answer.headers
        body = (await answer.aread()).decode()
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-store"
    assert headers["x-accel-buffering"] == "no"
    assert headers["tailrace-protocol"] == "1"
    assert headers["location"] == f"/api/apps/{sid}/agent/stream-continue?run_id={headers['x-run-id']}"
    assert body.startswith("retry: ")
    async with stack.client() as client:
        resumed = await client.get(headers["location"])
    assert resumed.text.count("event: finish\n") == 1


async def test_respond_async_answers_at_once_and_the_stream_can_be_joined(stack: Stack, sid: str) -> None:
    async with stack.client() as client:
        answer = await client.post(
            PATH.format(sid) + "/generate", json={"prompt": "Hello"}, headers={"Prefer": "respond-async"}
        )
        assert answer.status_code == 202
        assert answer.headers["x-run-id"] == answer.json()["run_id"]
        stream = await client.get(answer.json()["stream"])
    assert stream.text.count("event: finish\n") == 1


async def test_a_session_continues_its_conversation_on_another_worker(stack: Stack, sid: str) -> None:
    reader = stack.reader(sid)
    await reader.generate("My name is Ada")
    stack.kill_worker()
    stack.start_worker()
    again = stack.reader(sid)
    await again.generate("What did I say before?")
    assert "My name is Ada" in again.text
    assert again.seqs[0] == reader.seqs[-1] + 1


async def test_a_second_prompt_while_one_runs_is_refused_with_the_run_that_is_active(
    stack: Stack, sid: str
) -> None:
    async with stack.client() as client:
        first = await client.post(
            PATH.format(sid) + "/generate",
            json={"prompt": "write 200 words"},
            headers={"Prefer": "respond-async"},
        )
        second = await client.post(PATH.format(sid) + "/generate", json={"prompt": "Hello"})
    assert second.status_code == 409
    assert second.headers["content-type"].startswith("application/problem+json")
    assert second.json()["run_id"] == first.json()["run_id"]


async def _posted(stack: Stack, session_id: str, prompt: str) -> str:
    async with stack.client() as client:
        answer = await client.post(
            PATH.format(session_id) + "/generate",
            json={"prompt": prompt},
            headers={"Prefer": "respond-async"},
        )
    assert answer.status_code == 202
    return str(answer.json()["run_id"])


async def test_the_api_is_killed_while_three_clients_read_ten_runs_and_nobody_notices(
    stack: Stack, sid: str
) -> None:
    sessions = [f"{sid}-{nth}" for nth in range(10)]
    for session in sessions:  # three at a time, so that the last ones begin long after the kill
        await _posted(stack, session, "write 600 words")
    readers = {session: [stack.reader(session) for _ in range(3)] for session in sessions}
    everyone = [reader for group in readers.values() for reader in group]

    def reading_of(reader: Reader) -> Awaitable[None]:
        return reader.read_through(lambda: "finish" in {frame.event for frame in reader.events}, within=120)

    reading = [asyncio.ensure_future(reading_of(reader)) for reader in everyone]
    await until(lambda: sum(len(reader.events) for reader in everyone) >= 300)
    stack.kill_api()
    stack.start_api()
    await asyncio.gather(*reading)
    for group in readers.values():
        for reader in group:
            assert reader.seqs == list(range(1, len(reader.seqs) + 1))
            assert reader.events[-1].json["status"] == "success"
        assert len({tuple(frame.data for frame in reader.events) for reader in group}) == 1
    assert any(len(reader.statuses) > 1 for reader in everyone)


async def test_three_hundred_http_joins_have_no_hole_and_no_double(stack: Stack, sid: str) -> None:
    run_id = await _posted(stack, sid, "write 400 words")
    gate = asyncio.Semaphore(40)

    async def join(nth: int) -> None:
        await asyncio.sleep(nth * 0.012)
        async with gate, stack.client() as client:
            seen = (await client.get(PATH.format(sid) + "/events", params={"limit": "1000"})).json()["events"]
            cursor = seen[nth * 7 % len(seen)]
            params = {"since_timestamp": f"{cursor['timestamp']:.6f}"} if nth % 2 else {}
            headers = {} if nth % 2 else {"Last-Event-ID": cursor["event_id"]}
            answer = await client.get(PATH.format(sid) + "/stream-continue", params=params, headers=headers)
            if answer.status_code == 204:
                assert cursor["event_type"] == "finish"
                return
            seqs = [
                json.loads(line.removeprefix("data: "))["seq"]
                for line in answer.text.split("\n")
                if line.startswith("data: ") and '"event_type"' in line
            ]
            first = (
                cursor["seq"] + 1
                if not nth % 2
                else min(event["seq"] for event in seen if event["timestamp"] == cursor["timestamp"])
            )
            assert seqs[0] == first
            assert seqs == list(range(first, seqs[-1] + 1))
            assert answer.text.count("event: finish\n") == 1

    async with asyncio.TaskGroup() as group:
        for nth in range(300):
            group.create_task(join(nth))
    assert run_id


async def test_cursors_count_in_the_documented_order(stack: Stack, sid: str) -> None:
    reader = stack.reader(sid)
    await reader.generate("Hello")
    last = reader.seqs[-1]
    path = PATH.format(sid) + "/stream-continue"
    async with stack.client() as client:

        async def first(params: dict[str, str], header: str | None = None) -> int:
            headers = {"Last-Event-ID": header} if header else {}
            answer = await client.get(path, params=params, headers=headers)
            ready = next(line for line in answer.text.split("\n") if line.startswith('data: {"session_id"'))
            return int(json.loads(ready[6:])["from_seq"])

        both = {"last_event_id": f"{sid}:3", "since_timestamp": "1.5"}
        assert await first(both, f"{sid}:5") == 6
        assert await first(both) == 4
        assert await first({"since_timestamp": "1.5"}) == 1
        assert await first({}) == 1
        at_end = await client.get(path, headers={"Last-Event-ID": f"{sid}:{last}"})
        assert (at_end.status_code, at_end.content) == (204, b"")
        future = await client.get(path, params={"since_timestamp": "99999999999"})
        assert future.status_code == 204


@pytest.mark.parametrize(
    ("cursor", "reason"),
    [
        ("nonsense", "malformed"),
        ("s2:1", "other_session"),
        ("{sid}:999999", "unknown"),
        ("{sid}:-1", "malformed"),
    ],
)
async def test_an_unusable_cursor_is_announced_before_the_replay(
    stack: Stack, sid: str, cursor: str, reason: str
) -> None:
    reader = stack.reader(sid)
    await reader.generate("Hello")
    async with stack.client() as client:
        answer = await client.get(
            PATH.format(sid) + "/stream-continue", headers={"Last-Event-ID": cursor.format(sid=sid)}
        )
    frames = answer.text.split("\n\n")
    reset = next(frame for frame in frames if frame.startswith("event: stream.reset"))
    assert json.loads(reset.partition("data: ")[2])["reason"] == reason
    assert json.loads(reset.partition("data: ")[2])["from_seq"] == 1
    assert frames.index(reset) < next(nth for nth, frame in enumerate(frames) if frame.startswith("id: "))


async def test_follow_chooses_where_the_stream_ends(stack: Stack, sid: str) -> None:
    await stack.reader(sid).generate("Hello")
    run_id = await _posted(stack, sid, "write 100 words")
    none = stack.reader(sid, follow="none")
    await none.read()
    run = stack.reader(sid)
    await run.read()
    assert [frame.json["run_id"] for frame in run.events if frame.event == "finish"][-1] == run_id
    assert sum(frame.event == "finish" for frame in run.events) == 2
    assert none.seqs == run.seqs[: len(none.seqs)]
    only = stack.reader(sid, run_id=run_id)
    await only.read()
    assert {frame.json["run_id"] for frame in only.events} == {run_id}


async def test_follow_session_stays_open_across_runs(stack: Stack, sid: str) -> None:
    await stack.reader(sid).generate("Hello")
    reader = stack.reader(sid, follow="session")
    reading = asyncio.create_task(reader.read())
    await stack.reader(sid).generate("Again")
    await until(lambda: reading.done() or sum(frame.event == "finish" for frame in reader.events) == 2)
    assert not reading.done()
    reading.cancel()
    assert reader.seqs == list(range(1, len(reader.seqs) + 1))


async def test_shutting_down_ends_open_streams_at_once(stack: Stack, sid: str) -> None:
    await stack.reader(sid).generate("Hello")
    readers = [stack.reader(sid, follow="session") for _ in range(20)]
    reading = [asyncio.create_task(reader.read()) for reader in readers]
    await until(lambda: all(reader.events for reader in readers))
    await asyncio.to_thread(stack.api.stop)
    await asyncio.gather(*reading)
    assert all(reader.frames[-1].event == "stream.rotate" for reader in readers)
    stack.start_api()
