"""Cancelling a run that a worker performs, over real processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from redis import Redis
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack, until

from tailrace.client import Client, Frame

LONG = "Please write 5000 words."
WITHIN = 60.0  # seconds; far more than anything here takes


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = msgspec.structs.replace(shared_settings(mongo_url, redis_url), offline_tokens_per_second=100.0)
    with Stack(settings) as stack:
        yield stack


@pytest.fixture
def sid() -> str:
    """A session that no other test has seen."""
    return f"s{uuid4().hex[:8]}"


async def cancelled(stack: Stack, session: str, *, words: int = 20) -> tuple[list[Frame], float]:
    """The frames of a run that is cancelled after so many words, and the seconds from there to its finish."""
    frames: list[Frame] = []
    deltas = 0
    asked = 0.0
    async with Client(stack.url, stack.token()) as client, asyncio.timeout(WITHIN):
        async for frame in client.generate(session, LONG):
            frames.append(frame)
            deltas += frame.type == "message_delta"
            if deltas >= words and not asked:
                asked = time.monotonic()
                assert await client.cancel(session) == frame.data["run_id"]
    return frames, time.monotonic() - asked


def said(frames: list[Frame]) -> str:
    return "".join(frame.data["delta"] for frame in frames if frame.type == "message_delta")


async def page(stack: Stack, session: str, name: str) -> list[dict[str, Any]]:
    async with stack.client() as client:
        found: list[dict[str, Any]] = (await client.get(f"/api/apps/{session}/agent/{name}")).json()[name]
    return found


async def test_a_cancel_in_mid_answer_keeps_what_was_said_and_ends_the_run_once(
    stack: Stack, sid: str
) -> None:
    frames, seconds = await cancelled(stack, sid)
    print(f"from cancel to finish: {1000 * seconds:.0f} ms")
    ends = [frame.data["status"] for frame in frames if frame.type == "finish"]
    assert ends == ["cancelled"]
    assert frames[-1].type == "finish"
    whole = [frame.data for frame in frames if frame.type == "message_complete"][-1]
    assert (whole["role"], whole["status"], whole["content"]) == ("assistant", "cancelled", said(frames))
    assert 20 <= len(said(frames).split()) < 5000
    assert [frame.type for frame in frames].count("run_error") == 0
    user, answer = await page(stack, sid, "messages")
    assert (user["role"], user["content"]) == ("user", LONG)
    assert (answer["role"], answer["status"], answer["content"]) == ("assistant", "cancelled", said(frames))
    (run,) = await page(stack, sid, "runs")
    assert (run["state"], run["last_seq"]) == ("cancelled", frames[-1].seq)
    assert (await page(stack, sid, "events"))[-1]["seq"] == frames[-1].seq


async def test_cancelling_again_or_too_late_is_harmless_and_the_session_goes_on(
    stack: Stack, sid: str
) -> None:
    await cancelled(stack, sid)
    async with Client(stack.url, stack.token()) as client, asyncio.timeout(WITHIN):
        assert await client.cancel(sid) is None
        frames = [frame async for frame in client.generate(sid, "What is 17 * 23?")]
    assert frames[-1].data["status"] == "success"
    assert "391" in said(frames)


async def test_of_many_cancels_at_once_one_finish_comes(stack: Stack, sid: str) -> None:
    reader = stack.reader(sid)
    async with stack.client() as client, asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
        reading = group.create_task(reader.generate(LONG))
        await until(lambda: bool(reader.text))
        answers = await asyncio.gather(*(client.post(f"/api/apps/{sid}/agent/cancel") for _ in range(20)))
        await reading
    assert {answer.status_code for answer in answers} <= {httpx.codes.ACCEPTED, httpx.codes.OK}
    assert [frame.json["status"] for frame in reader.events if frame.event == "finish"] == ["cancelled"]
    assert reader.seqs == list(range(1, reader.seqs[-1] + 1))


async def test_a_run_that_waits_behind_another_is_cancelled_alone(stack: Stack, sid: str) -> None:
    busy, waiting = stack.reader(sid), stack.reader(f"{sid}w")
    async with stack.client() as client, asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
        first = group.create_task(busy.generate(LONG))
        await until(lambda: bool(busy.text))
        second = group.create_task(waiting.generate(LONG))
        await until(lambda: bool(waiting.events))
        assert (await client.post(f"/api/apps/{sid}w/agent/cancel")).status_code == httpx.codes.ACCEPTED
        await second
        assert not first.done()
        await client.post(f"/api/apps/{sid}/agent/cancel")
    told = [frame.json for frame in waiting.events]
    assert [event["event_type"] for event in told] == [
        "run_queued",
        "message_complete",
        "agent_end",
        "finish",
    ]
    assert (told[1]["role"], told[1]["content"]) == ("user", LONG)
    assert told[-1]["status"] == "cancelled"
    (kept,) = await page(stack, f"{sid}w", "messages")
    assert (kept["message_id"], kept["content"]) == (told[1]["message_id"], LONG)
    # Its job is still in the queue; the worker must leave it alone and take the next one.
    again = stack.reader(f"{sid}w")
    await again.generate("What is 17 * 23?")
    assert "391" in again.text
    assert again.seqs[0] == waiting.seqs[-1] + 1


async def test_a_cancel_that_redis_does_not_carry_arrives_by_the_database(stack: Stack, sid: str) -> None:
    reader = stack.reader(sid)
    with Redis.from_url(stack.settings.redis_url) as redis:
        async with stack.client() as client, asyncio.timeout(WITHIN), asyncio.TaskGroup() as group:
            reading = group.create_task(reader.generate(LONG))
            await until(lambda: bool(reader.text))
            redis.client_kill_filter(_type="pubsub")  # the worker listens again a second later
            await client.post(f"/api/apps/{sid}/agent/cancel")
            await reading
    assert reader.events[-1].json["status"] == "cancelled"
