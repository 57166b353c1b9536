"""Runs whose process is killed or frozen, as a reader sees them: told again, with one finish."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Reader, Stack, until

PROMPT = "write 120 words"


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = msgspec.structs.replace(shared_settings(mongo_url, redis_url), offline_tokens_per_second=60.0)
    with Stack(settings, workers=2) as stack:
        yield stack


@pytest.fixture
def sid() -> str:
    return f"s{uuid4().hex[:8]}"


def processes(stack: Stack) -> dict[int, int]:
    """The processes that perform runs, each with the worker that forked it."""
    with MongoClient[dict[str, Any]](stack.settings.mongodb_url) as mongo:
        running = mongo[stack.settings.mongodb_db]["runs"].find({"state": "running"}).to_list()
    performing = {pid for run in running for pid in run["worker"].split(":")}
    return {pid: worker for pid, worker in _forked(stack).items() if str(pid) in performing}


def _forked(stack: Stack) -> dict[int, int]:
    """The same, and those that wait for a run."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid=,stat="], capture_output=True, text=True, check=True)
    parents = {
        int(pid): int(parent)
        for pid, parent, state in (line.split(None, 2) for line in listed.stdout.splitlines())
        if not state.startswith("Z")
    }
    pool = stack.worker.pid
    return {pid: parent for pid, parent in parents.items() if parents.get(parent) == pool}


async def _reading(stack: Stack, sid: str) -> tuple[Reader, asyncio.Task[None]]:
    """A reader of a run that is in the middle of its answer."""
    reader = stack.reader(sid)
    reading = asyncio.create_task(reader.generate(PROMPT))
    await until(lambda: sum(frame.event == "delta" for frame in reader.frames) >= 20)
    return reader, reading


def _check_second_attempt(reader: Reader) -> None:
    events = [frame.json for frame in reader.events]
    assert reader.seqs == list(range(1, len(events) + 1))
    assert [event["status"] for event in events if event["event_type"] == "finish"] == ["success"]
    assert events[-1]["event_type"] == "finish"
    (superseded,) = (event for event in events if event["event_type"] == "attempt_superseded")
    assert {event["attempt"] for event in events if event["seq"] < superseded["seq"]} == {1}
    assert {event["attempt"] for event in events if event["seq"] >= superseded["seq"]} == {2}
    counted = [
        event["delta"]
        for event in events
        if event["event_type"] == "message_delta" and event["seq"] > superseded["to_seq"]
    ]
    final = [event for event in events if event["event_type"] == "message_complete"][-1]
    assert "".join(counted) == final["content"]


async def test_a_killed_horse_is_replaced_at_once(stack: Stack, sid: str) -> None:
    reader, reading = await _reading(stack, sid)
    ((horse, _),) = processes(stack).items()
    os.kill(horse, signal.SIGKILL)
    await asyncio.wait_for(reading, 60)
    _check_second_attempt(reader)


async def test_a_run_outlives_its_whole_worker(stack: Stack, sid: str) -> None:
    reader, reading = await _reading(stack, sid)
    ((_, worker),) = processes(stack).items()
    stack.kill_worker()
    os.kill(worker, signal.SIGKILL)  # its horse dies with it
    stack.start_worker()
    await asyncio.wait_for(reading, 60)
    _check_second_attempt(reader)


async def test_a_frozen_horse_loses_its_run_and_writes_nothing_when_it_thaws(stack: Stack, sid: str) -> None:
    reader, reading = await _reading(stack, sid)
    ((horse, _),) = processes(stack).items()
    os.kill(horse, signal.SIGSTOP)
    try:
        await asyncio.wait_for(reading, 60)
    finally:
        os.kill(horse, signal.SIGCONT)
    _check_second_attempt(reader)
    await until(lambda: horse not in _forked(stack))
    replayed = stack.reader(sid, follow="none")
    await replayed.read()
    assert replayed.seqs == reader.seqs
