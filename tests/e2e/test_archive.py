"""An archived session over HTTP, from a real S3 API: replayed, paged and verified as if it were live."""

from __future__ import annotations

import asyncio
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.s3 import BUCKET, S3, s3
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Reader, Stack, seen, until

from tailrace.dev import child_environ

Mongo = MongoClient[dict[str, Any]]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3]:
    with s3(tmp_path_factory.mktemp("s3")) as server, pytest.MonkeyPatch.context() as patched:
        for name, value in server.environ.items():
            patched.setenv(name, value)
        yield server


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str, store: S3) -> Iterator[Stack]:
    settings = msgspec.structs.replace(
        shared_settings(mongo_url, redis_url),
        archive_url=f"s3://{BUCKET}/a/prefix",
        offline_tokens_per_second=2_000.0,
    )
    with Stack(settings) as stack:
        yield stack


@pytest.fixture
def sid() -> str:
    return f"s{uuid4().hex[:12]}"


async def _command(stack: Stack, *arguments: str) -> str:
    command = [sys.executable, "-m", "tailrace.cli", *arguments]
    done = await asyncio.to_thread(
        subprocess.run,
        command,
        env=child_environ(stack.settings),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


async def _archived(stack: Stack, mongo: Mongo, sid: str) -> Reader:
    """A live reader's frames of a session whose events are in the archive alone by now."""
    live = stack.reader(sid)
    await live.generate("write 80 words")
    await live.generate("what is 17 * 23?")
    runs = mongo[stack.settings.mongodb_db]["runs"]
    await until(lambda: runs.find_one({"session_id": sid, "finished_at": None}) is None)
    assert sid in await _command(stack, "archive", "--older-than", "0s")
    deleted = mongo[stack.settings.mongodb_db]["events"].delete_many({"session_id": sid})
    assert deleted.deleted_count == len(live.events)
    return live


async def test_metrics_tell_when_a_pass_last_went_through(stack: Stack) -> None:
    await _command(stack, "archive")
    async with stack.client() as client:

        async def fresh() -> bool:
            text = (await client.get("/metrics")).text
            ages = re.findall(r"^tailrace_archive_age_seconds (.*)$", text, re.MULTILINE)
            return any(float(age) <= 600 for age in ages)

        await seen(fresh)  # it is looked up every five seconds


async def test_a_replay_from_the_archive_is_the_same_bytes_and_goes_on_into_live(
    stack: Stack, store: S3, mongo: Mongo, sid: str
) -> None:
    live = await _archived(stack, mongo, sid)
    whole = stack.reader(sid)
    await whole.read()
    assert [frame.data for frame in whole.events] == [frame.data for frame in live.events]

    middle = live.events[len(live.events) // 2]
    by_id, by_time = stack.reader(sid, last_event_id=str(middle.id)), stack.reader(sid)
    await by_id.read()
    assert by_id.seqs == live.seqs[len(live.events) // 2 + 1 :]
    by_time = stack.reader(sid, since_timestamp=f"{middle.json['timestamp']:.6f}")
    await by_time.read()
    newer = [f.json["seq"] for f in live.events if f.json["timestamp"] >= middle.json["timestamp"]]
    assert by_time.seqs == newer

    async with stack.client() as client:
        page = (await client.get(f"/api/apps/{sid}/agent/events", params={"limit": "1000"})).text
        assert [frame.data in page for frame in live.events] == [True] * len(live.events)

    await live.generate("write 30 words")  # behind what is archived
    await whole.read()
    rest = stack.reader(sid)
    await rest.read()
    for reader in (whole, rest):
        assert [frame.data for frame in reader.events] == [frame.data for frame in live.events]
        assert reader.seqs == list(range(1, len(reader.events) + 1))
    told = await _command(stack, "verify", sid, "--url", stack.url, "--token", stack.token())
    assert "3" in told


async def test_an_erased_session_is_erased_from_the_bucket(
    stack: Stack, store: S3, mongo: Mongo, sid: str
) -> None:
    await _archived(stack, mongo, sid)
    assert any(f"/{sid}/" in key for key in store.listed())
    async with stack.client() as client:
        assert (await client.delete(f"/api/apps/{sid}")).status_code == httpx.codes.NO_CONTENT
    await until(lambda: not any(sid in key for key in store.listed()))


async def test_a_store_that_is_away_is_told(stack: Stack, store: S3, mongo: Mongo, sid: str) -> None:
    await _archived(stack, mongo, sid)
    store.child.kill()  # for good: it forgets everything
    async with stack.client(patience=60) as client:
        answer = await client.get(f"/api/apps/{sid}/agent/events")
        assert answer.status_code == httpx.codes.SERVICE_UNAVAILABLE
        assert "archive" in answer.json()["detail"]
    reader = stack.reader(sid)
    await reader.read()
    assert (reader.frames[-1].event, reader.frames[-1].json) == ("stream.rotate", {"reason": "error"})
    assert reader.events == []
    said = stack.api.log.read_text()
    assert said.count("The archive does not answer") == 1  # of them both
    assert "Traceback" not in said
