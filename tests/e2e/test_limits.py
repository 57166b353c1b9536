"""Two APIs hold a user to one set of limits, and one user's appetite leaves the others their streams."""

from __future__ import annotations

import asyncio
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.neighbour import Neighbour
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack, seen, until

from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.mongo import connect
from tailrace.sessions import Sessions
from tailrace.writer import Writer

PER_MINUTE, RUNS, STREAMS = 8, 3, 20
LONG = 10_000  # events of the session that is replayed
SHOWN = 60  # events of the one that is watched, without the neighbour and with him


@pytest.fixture(scope="module")
def stacks(mongo_url: str, redis_url: str) -> Iterator[tuple[Stack, Stack]]:
    """Two APIs of one deployment, without a worker: runs stay queued."""
    settings = msgspec.structs.replace(
        shared_settings(mongo_url, redis_url),
        max_runs_per_minute=PER_MINUTE,
        max_concurrent_runs=RUNS,
        max_concurrent_streams=STREAMS,
    )
    both = Stack(settings), Stack(settings)
    try:
        for stack in both:
            stack.start_api()
        yield both
    finally:
        for stack in both:
            stack.__exit__(None, None, None)


@pytest.fixture
def user() -> str:
    """A user who has asked for nothing yet."""
    return f"user-{uuid4().hex[:8]}"


async def writer(stack: Stack, database: Any, session_id: str, user: str) -> Writer:
    """What appends events to a session of `user`."""

    async def mine() -> bool:
        return True

    await Sessions(database).claim(session_id, user, title="")
    log = EventLog(database, retention_seconds=3600)
    return Writer(log, session_id, run_id="written", attempt=1, owns=mine)


def deltas(count: int) -> list[Draft]:
    return [Draft(event_type="message_delta", data={"delta": "token "})] * count


async def test_many_prompts_at_once_over_two_apis_pass_exactly_up_to_the_limits(
    stacks: tuple[Stack, Stack], user: str, mongo: MongoClient[dict[str, Any]]
) -> None:
    async with stacks[0].client(user=user) as one, stacks[1].client(user=user) as other:

        async def post(nth: int) -> httpx.Response:
            path = f"/api/apps/{user}-{nth}/agent/generate"
            client = (one, other)[nth % 2]
            return await client.post(path, json={"prompt": "Hello"}, headers={"Prefer": "respond-async"})

        answers = await asyncio.gather(*(post(nth) for nth in range(30)))
    told = Counter(answer.json().get("limit", "accepted") for answer in answers)
    assert told == {
        "accepted": RUNS,
        "concurrent-runs": PER_MINUTE - RUNS,
        "runs-per-minute": 30 - PER_MINUTE,
    }
    assert all("retry-after" in answer.headers for answer in answers if answer.status_code != 202)
    stored = mongo[stacks[0].settings.mongodb_db]["runs"].count_documents({"user": user})
    assert stored == RUNS


async def test_streams_over_two_apis_count_together_until_they_end_or_their_api_is_killed(
    stacks: tuple[Stack, Stack], user: str
) -> None:
    async with connect(stacks[0].settings) as database:
        await (await writer(stacks[0], database, user, user)).append(deltas(1))
    readers = [stacks[nth % 2].reader(user, user=user, follow="session") for nth in range(STREAMS)]
    reading = [asyncio.create_task(reader.read()) for reader in readers]
    await until(lambda: all(reader.events for reader in readers))
    for stack in stacks:
        assert (await asked(stack, user)).json()["limit"] == "concurrent-streams"

    reading[0].cancel()
    await admitted(stacks[1], user)

    stacks[0].kill_api()
    await asyncio.gather(*reading[::2], return_exceptions=True)
    try:
        back = [stacks[1].reader(user, user=user, follow="session") for _ in range(STREAMS // 2)]
        returning = [asyncio.create_task(persistent(reader)) for reader in back]
        await until(lambda: all(reader.events for reader in back))
        assert (await asked(stacks[1], user)).status_code == 429
    finally:
        stacks[0].start_api()
    for task in (*reading, *returning):
        task.cancel()
    await asyncio.gather(*reading, *returning, return_exceptions=True)


async def asked(stack: Stack, user: str) -> httpx.Response:
    """The answer to a request for a stream that ends by itself."""
    async with stack.client(user=user) as client:
        return await client.get(f"/api/apps/{user}/agent/stream-continue", params={"follow": "none"})


async def admitted(stack: Stack, user: str) -> None:
    async def is_admitted() -> bool:
        return (await asked(stack, user)).status_code == 200

    await seen(is_admitted, within=30)


async def persistent(reader: Any) -> None:
    """Read, and try again after each refusal."""
    while not reader.events:
        try:
            await reader.read()
        except AssertionError:  # how a Reader tells of an error status
            await asyncio.sleep(0.2)


@contextmanager
def greedy(stack: Stack, user: str, session_id: str) -> Iterator[None]:
    """A user in a process of his own who replays, pages, posts and uploads, at his limits and beyond."""

    def request(method: str, path: str, body: bytes = b"") -> bytes:
        head = [
            f"{method} /api/apps/{session_id}/agent/{path} HTTP/1.1",
            "Host: 127.0.0.1",
            "Connection: close",
            f"Authorization: Bearer {stack.token(user)}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
        ]
        return "\r\n".join([*head, "", ""]).encode() + body

    requests = [
        *[request("GET", "stream-continue?follow=none")] * 10,
        request("GET", "events?limit=1000"),
        request("POST", "generate", b'{"prompt":"Hello"}'),
        request("POST", "generate", b'{"prompt":"x","metadata":{"a":[' + b"[]," * 1_300_000 + b"[]]}}"),
    ]
    told = Neighbour(port=stack.settings.port, requests=requests, connections=2 * STREAMS)
    argv = [sys.executable, "-m", "tests.e2e.neighbour"]
    with subprocess.Popen(argv, stdin=subprocess.PIPE) as process:
        try:
            assert process.stdin is not None
            process.stdin.write(msgspec.msgpack.encode(told))
            process.stdin.close()
            yield
        finally:
            process.kill()


async def test_a_greedy_user_leaves_another_his_stream(
    stacks: tuple[Stack, Stack], user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    stack, session_id, long = stacks[0], f"{user}-live", f"{user}-long"
    async with connect(stack.settings) as database:
        filling = await writer(stack, database, long, "greedy")
        for _ in range(LONG // 500):
            await filling.append(deltas(500))
        watched = await writer(stack, database, session_id, user)
        await watched.append(deltas(1))
        reader = stack.reader(session_id, user=user, follow="session")
        reading = asyncio.create_task(reader.read())
        await until(lambda: reader.seqs == [1])

        async def delays() -> list[float]:
            """Seconds from each append to its arrival."""
            found = []
            for _ in range(SHOWN):
                began = time.monotonic()
                await watched.append(deltas(1))
                await until(lambda: reader.seqs[-1] == watched.last_seq)
                found.append(reader.events[-1].at - began)
            return found

        alone = await delays()
        with greedy(stack, "greedy", long):
            async with asyncio.timeout(60):  # until he is at it
                while (await asked_of(stack, long)).status_code != 429:  # noqa: ASYNC110
                    await asyncio.sleep(0.05)
            beside = await delays()
        reading.cancel()
    assert reader.seqs == list(range(1, 2 * SHOWN + 2))
    assert reader.statuses == [200]
    with capsys.disabled():
        print(
            f"\nan event's way, append to client: {shown(alone)} alone, {shown(beside)} beside a greedy user"
        )


async def asked_of(stack: Stack, session_id: str) -> httpx.Response:
    path, headers = (
        f"/api/apps/{session_id}/agent/generate",
        {"prefer": "respond-async"},
    )  # no stream: none ends
    async with stack.client(user="greedy") as client:
        return await client.post(path, json={"prompt": "Hello"}, headers=headers)


def shown(delays: list[float]) -> str:
    quantiles = statistics.quantiles(delays, n=100)
    return f"p50 {1000 * quantiles[49]:.1f} ms, p99 {1000 * quantiles[98]:.1f} ms"
