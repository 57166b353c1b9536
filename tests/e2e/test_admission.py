"""Prompts that meet an active run, and prompts that are sent twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Reader, Stack, until

ASYNC = {"Prefer": "respond-async"}


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = msgspec.structs.replace(shared_settings(mongo_url, redis_url), offline_tokens_per_second=100.0)
    with Stack(settings, workers=2) as stack:
        yield stack


@pytest.fixture
def sid() -> str:
    return f"s{uuid4().hex[:8]}"


async def post(stack: Stack, sid: str, prompt: str, *, key: str | None = None, **body: Any) -> httpx.Response:
    headers = {**ASYNC, **({"Idempotency-Key": key} if key else {})}
    async with stack.client() as client:
        path = f"/api/apps/{sid}/agent/generate"
        return await client.post(path, json={"prompt": prompt, **body}, headers=headers)


async def read_until_finishes(stack: Stack, sid: str, count: int) -> Reader:
    reader = stack.reader(sid, follow="session")
    reading = asyncio.create_task(reader.read())
    await until(lambda: sum(frame.event == "finish" for frame in reader.events) >= count)
    reading.cancel()
    assert reader.seqs == list(range(1, len(reader.seqs) + 1))
    return reader


def story(reader: Reader) -> list[tuple[str, str]]:
    """What began and ended, in order."""
    told = ("agent_start", "finish")
    events = [frame.json for frame in reader.events]
    return [(event["event_type"], event["run_id"]) for event in events if event["event_type"] in told]


async def test_enqueued_runs_wait_and_run_in_order(stack: Stack, sid: str) -> None:
    answers = [await post(stack, sid, f"write {20 + nth} words", on_conflict="enqueue") for nth in range(4)]
    assert [answer.json()["state"] for answer in answers] == ["queued", "waiting", "waiting", "waiting"]
    reader = await read_until_finishes(stack, sid, 4)
    order = [answer.json()["run_id"] for answer in answers]
    assert story(reader) == [(kind, run_id) for run_id in order for kind in ("agent_start", "finish")]


async def test_a_waiting_run_can_be_read_alone_from_the_moment_it_was_asked_for(
    stack: Stack, sid: str
) -> None:
    await post(stack, sid, "write 100 words")
    reader = stack.reader(sid)
    await reader.generate("What is 6 * 7?", on_conflict="enqueue")
    assert [reader.events[0].json["event_type"], reader.events[-1].event] == ["run_queued", "finish"]
    assert len({frame.json["run_id"] for frame in reader.events}) == 1
    assert "42" in reader.text


async def test_waiting_runs_survive_a_restart_of_everything(stack: Stack, sid: str) -> None:
    for nth in range(3):
        await post(stack, sid, f"write {50 + nth} words", on_conflict="enqueue")
    stack.kill_api()
    stack.kill_worker()
    stack.start_worker()
    stack.start_api()
    reader = await read_until_finishes(stack, sid, 3)
    assert [kind for kind, _ in story(reader)].count("finish") == 3


async def test_interrupt_ends_the_active_run_and_begins_the_new_one(stack: Stack, sid: str) -> None:
    first = await post(stack, sid, "write 2000 words")
    watching = stack.reader(sid, follow="session")
    reading = asyncio.create_task(watching.read())
    await until(lambda: len(watching.text) > 50)
    second = await post(stack, sid, "What is 6 * 7?", on_conflict="interrupt")
    await until(lambda: sum(frame.event == "finish" for frame in watching.events) == 2)
    reading.cancel()
    ends = [frame.json for frame in watching.events if frame.event == "finish"]
    assert [(end["run_id"], end["status"]) for end in ends] == [
        (first.json()["run_id"], "cancelled"),
        (second.json()["run_id"], "success"),
    ]
    assert "42" in watching.text


async def test_a_repeated_request_joins_the_first_run(
    stack: Stack, sid: str, mongo: MongoClient[dict[str, Any]]
) -> None:
    answers = await asyncio.gather(*(post(stack, sid, "write 30 words", key="k1") for _ in range(5)))
    assert {answer.status_code for answer in answers} == {202}
    (run_id,) = {answer.json()["run_id"] for answer in answers}
    await read_until_finishes(stack, sid, 1)
    # As it is for a moment between the first event and the note of where that stands.
    mongo[stack.settings.mongodb_db]["runs"].update_one({"_id": run_id}, {"$unset": {"first_seq": ""}})
    async with stack.client() as client:
        path = f"/api/apps/{sid}/agent/generate"
        again = await client.post(path, json={"prompt": "write 30 words"}, headers={"Idempotency-Key": "k1"})
        runs = (await client.get(f"/api/apps/{sid}/agent/runs")).json()["runs"]
    assert again.headers["x-run-id"] == run_id
    assert again.text.count('"event_type":"run_queued"') == 1
    assert again.text.count("event: finish\n") == 1
    assert len(runs) == 1


async def test_a_key_used_for_another_request_is_refused(stack: Stack, sid: str) -> None:
    await post(stack, sid, "write 30 words", key="k1")
    other = await post(stack, sid, "write 31 words", key="k1")
    assert other.status_code == 422
    assert other.headers["content-type"].startswith("application/problem+json")


@pytest.mark.parametrize("key", ["x" * 201, "a b", "\x7f"])
async def test_a_malformed_key_is_refused(stack: Stack, sid: str, key: str) -> None:
    answer = await post(stack, sid, "hello", key=key)
    assert answer.status_code == 400


async def test_leaving_cancels_a_run_that_was_started_so(stack: Stack, sid: str) -> None:
    reader = stack.reader(sid)
    reading = asyncio.create_task(reader.generate("write 5000 words", on_disconnect="cancel"))
    await until(lambda: len(reader.text) > 50)
    reading.cancel()
    await asyncio.wait([reading])
    # A look at what there is so far: a reader that stays would keep the run alive.
    watching = stack.reader(sid, follow="none")
    await watching.read_through(lambda: "finish" in {frame.event for frame in watching.events})
    assert watching.events[-1].json["status"] == "cancelled"


async def test_a_second_reader_keeps_such_a_run_alive(stack: Stack, sid: str) -> None:
    reader, other = stack.reader(sid), stack.reader(sid)
    reading = asyncio.create_task(reader.generate("write 800 words", on_disconnect="cancel_after:1"))
    await until(lambda: len(reader.text) > 50)
    watching = asyncio.create_task(other.read())
    await until(lambda: len(other.text) > 50)
    reading.cancel()
    await watching
    assert other.events[-1].json["status"] == "success"


async def test_leaving_is_not_cancelling(stack: Stack, sid: str) -> None:
    reader = stack.reader(sid)
    reading = asyncio.create_task(reader.generate("write 600 words"))
    await until(lambda: len(reader.text) > 50)
    reading.cancel()
    await asyncio.wait([reading])
    later = stack.reader(sid)
    await later.read_through(lambda: "finish" in {frame.event for frame in later.events})
    assert later.events[-1].json["status"] == "success"
