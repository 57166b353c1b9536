"""Erasing a session that is at work: its readers are cut, its runs end, and in the end nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.leftovers import in_mongo, in_redis
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Reader, Stack, until

Mongo = MongoClient[dict[str, Any]]


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = msgspec.structs.replace(shared_settings(mongo_url, redis_url), offline_tokens_per_second=60.0)
    with Stack(settings, workers=1) as stack:
        yield stack


@pytest.fixture
def sid() -> str:
    return f"s{uuid4().hex[:12]}"


@pytest.fixture
def secret() -> str:
    return f"q{uuid4().hex[:12]}"


async def _reading(stack: Stack, sid: str, secret: str) -> tuple[Reader, asyncio.Task[None]]:
    reader = stack.reader(sid)
    reading = asyncio.create_task(reader.generate(f"write 600 words about {secret}"))
    await until(lambda: sum(frame.event == "delta" for frame in reader.frames) >= 20)
    return reader, reading


async def _nothing_left(mongo: Mongo, stack: Stack, *words: str) -> None:
    await until(lambda: not in_redis(stack.settings, *words), within=90)
    await until(lambda: not in_mongo(mongo, stack.settings, *words), within=90)


async def test_a_session_at_work_is_gone_for_everybody_and_everywhere(
    stack: Stack, mongo: Mongo, sid: str, secret: str
) -> None:
    reader, reading = await _reading(stack, sid, secret)
    async with stack.client() as client:
        prompt = {"prompt": f"write 5 words about {secret}", "on_conflict": "enqueue"}
        agent = f"/api/apps/{sid}/agent"
        waiting = await client.post(f"{agent}/generate", json=prompt, headers={"Prefer": "respond-async"})
        assert waiting.status_code == httpx.codes.ACCEPTED

        async with stack.client(user="mallory") as stranger:
            assert (await stranger.delete(f"/api/apps/{sid}")).status_code == httpx.codes.NOT_FOUND
        assert (await client.delete(f"/api/apps/{sid}")).status_code == httpx.codes.NO_CONTENT
        answers = [
            await client.delete(f"/api/apps/{sid}"),
            await client.post(f"{agent}/generate", json={"prompt": "again"}),
            await client.post(f"{agent}/cancel"),
            *[await client.get(f"{agent}/{name}") for name in ("stream-continue", "events", "messages")],
            await client.get(f"{agent}/runs"),
        ]
        assert {answer.status_code for answer in answers} == {httpx.codes.NOT_FOUND}
        listed = (await client.get("/api/apps")).json()["apps"]
        assert sid not in [app["session_id"] for app in listed]
    await asyncio.wait_for(reading, 30)
    assert (reader.frames[-1].event, reader.frames[-1].json) == ("stream.expired", {"reason": "revoked"})
    await _nothing_left(mongo, stack, sid, secret)


async def test_a_process_that_thaws_after_the_erasure_leaves_nothing(
    stack: Stack, mongo: Mongo, sid: str, secret: str
) -> None:
    _, reading = await _reading(stack, sid, secret)
    (horse,) = _grandchildren(stack.worker.pid or 0)
    os.kill(horse, signal.SIGSTOP)
    database = mongo[stack.settings.mongodb_db]
    event = database["events"].find_one({"session_id": sid, "event_type": "message_delta"}) or {}
    try:
        async with stack.client() as client:
            assert (await client.delete(f"/api/apps/{sid}")).status_code == httpx.codes.NO_CONTENT
        await until(lambda: not in_mongo(mongo, stack.settings, sid, secret))
        # What the process has in hand when it thaws, for its insert stands where nothing is.
        database["events"].insert_one({**event, "_id": f"{sid}:7000", "seq": 7000})
        database["notes"].insert_one({"_id": sid, "notes": [{"text": secret}]})
    finally:
        os.kill(horse, signal.SIGCONT)
    await asyncio.wait_for(reading, 30)
    await until(lambda: horse not in _grandchildren(stack.worker.pid or 0))
    await _nothing_left(mongo, stack, sid, secret)
    assert (database["sessions"].find_one({"_id": sid}) or {}).keys() == {
        "_id", "last_seq", "erased_at", "sweep_at", "sweeps", "jobs", "traces", "expires_at",
    }  # fmt: skip


async def test_what_a_killed_api_began_to_erase_is_finished(
    stack: Stack, mongo: Mongo, sid: str, secret: str
) -> None:
    _, reading = await _reading(stack, sid, secret)
    async with stack.client() as client:
        assert (await client.delete(f"/api/apps/{sid}")).status_code == httpx.codes.NO_CONTENT
    stack.kill_api()
    with suppress(httpx.TransportError):  # or it was told before
        await reading
    stack.start_api()
    await _nothing_left(mongo, stack, sid, secret)


def _grandchildren(pool: int) -> list[int]:
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True)
    parents = {int(pid): int(parent) for pid, parent in map(str.split, listed.stdout.splitlines())}
    return [pid for pid, parent in parents.items() if parents.get(parent) == pool]
