"""Workers that are told to leave in the middle of runs: others finish them, and nobody waits for long."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from redis import Redis
from rq import Queue, Worker
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Reader, Stack, until
from tests.e2e.test_recovery import processes

from tailrace.child import Child
from tailrace.dev import child_environ
from tailrace.settings import Settings

HANDOVER = 1.0  # seconds
WITHIN = HANDOVER + 8.0 + 12.0  # for a pool to be gone, with a lot for a busy machine
AT_ONCE = 2  # runs of a pool
LONG = "write 400 words"


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = msgspec.structs.replace(
        shared_settings(mongo_url, redis_url),
        offline_tokens_per_second=60.0,
        handover_seconds=HANDOVER,
        max_attempts=1,
    )
    with Stack(settings, workers=AT_ONCE) as stack:
        yield stack


def pool(settings: Settings, place: Path, name: str) -> Child:
    argv = [sys.executable, "-m", "tailrace_worker", "-n", str(AT_ONCE)]
    return Child(name, argv, log=place / f"{name}.log", environ=child_environ(settings))


def ready(settings: Settings, pool: Child) -> bool:
    """Whether all workers of `pool` take jobs; those that were killed stay registered for a while."""
    own = below(pool.pid or 0)
    with Redis.from_url(settings.redis_url) as redis:
        workers = Worker.all(queue=Queue(settings.queue, connection=redis))
    return sum(worker.pid in own for worker in workers) == AT_ONCE


def below(pid: int) -> list[int]:
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in path.read_text().split()] if path.exists() else []
    return [*children, *(each for child in children for each in below(child))]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def _reading(stack: Stack, count: int) -> tuple[list[Reader], list[asyncio.Task[None]]]:
    """Readers of runs that are all in the middle of their answers."""
    readers = [stack.reader(f"s{uuid4().hex[:8]}") for _ in range(count)]
    reading = [asyncio.create_task(reader.generate(LONG)) for reader in readers]
    for reader in readers:
        await until(lambda reader=reader: reader.text != "")  # type: ignore[misc] # mypy: no type for it
    return readers, reading


def check(reader: Reader, *, attempts: int) -> None:
    events: list[dict[str, Any]] = [frame.json for frame in reader.events]
    assert reader.seqs == list(range(1, len(events) + 1))
    assert [event["status"] for event in events if event["event_type"] == "finish"] == ["success"]
    assert events[-1]["event_type"] == "finish"
    assert events[-1]["attempt"] == attempts
    assert sum(event["event_type"] == "attempt_superseded" for event in events) == attempts - 1
    begins = max(event.get("to_seq", 0) for event in events)
    counted = [e["delta"] for e in events if e["event_type"] == "message_delta" and e["seq"] > begins]
    final = [event for event in events if event["event_type"] == "message_complete"][-1]
    assert "".join(counted) == final["content"]


async def test_a_pool_that_leaves_hands_its_runs_to_the_other(stack: Stack, tmp_path: Path) -> None:
    other = pool(stack.settings, tmp_path, "other")
    other.start()
    try:
        await until(lambda: ready(stack.settings, other) and ready(stack.settings, stack.worker))
        readers, reading = await _reading(stack, 2 * AT_ONCE)
        processes = [stack.worker.pid or 0, *below(stack.worker.pid or 0)]
        assert len(processes) == 1 + 2 * AT_ONCE
        asked = time.monotonic()
        os.kill(processes[0], signal.SIGTERM)
        await until(lambda: stack.worker.exit_code is not None)
        assert time.monotonic() - asked < WITHIN
        assert stack.worker.exit_code == 0
        assert not [pid for pid in processes if alive(pid)]
        await asyncio.wait_for(asyncio.gather(*reading), 60)
        # One attempt is all that a run may have; a hand-over costs none.
        attempts = [reader.events[-1].json["attempt"] for reader in readers]
        assert sorted(attempts) == [1] * AT_ONCE + [2] * AT_ONCE
        for reader, count in zip(readers, attempts, strict=True):
            check(reader, attempts=count)
    finally:
        other.stop()
        print(*other.tail(40), sep="\n")
        stack.start_worker()


@pytest.fixture
async def patient(stack: Stack, tmp_path: Path) -> AsyncIterator[Child]:
    """A pool, in the place of the stack's own, that lets its runs go on for a minute."""
    patient = pool(msgspec.structs.replace(stack.settings, handover_seconds=60.0), tmp_path, "patient")
    stack.worker.stop()
    patient.start()
    try:
        await until(lambda: ready(stack.settings, patient))
        yield patient
    finally:
        patient.stop()
        if not stack.worker.running:
            stack.start_worker()


async def test_a_run_that_can_finish_in_time_does(stack: Stack, patient: Child) -> None:
    (reader,), reading = await _reading(stack, 1)
    os.kill(patient.pid or 0, signal.SIGTERM)
    await asyncio.wait_for(asyncio.gather(*reading), 60)
    check(reader, attempts=1)
    await until(lambda: patient.exit_code == 0)


async def test_a_second_signal_hands_over_at_once_and_the_run_waits_for_a_worker(
    stack: Stack, patient: Child
) -> None:
    (reader,), reading = await _reading(stack, 1)
    os.kill(patient.pid or 0, signal.SIGTERM)
    await asyncio.sleep(1.5)  # what comes within a second counts as an echo of the first
    os.kill(patient.pid or 0, signal.SIGTERM)
    await until(lambda: patient.exit_code == 0, within=WITHIN)
    # Nobody is there to take it.
    assert not reading[0].done()
    with Redis.from_url(stack.settings.redis_url) as redis:
        assert len(Queue(stack.settings.queue, connection=redis).get_job_ids()) == 1
    stack.start_worker()
    await asyncio.wait_for(asyncio.gather(*reading), 60)
    check(reader, attempts=2)


async def test_a_frozen_horse_keeps_no_worker_from_leaving(stack: Stack) -> None:
    (reader,), reading = await _reading(stack, 1)
    pool_id = stack.worker.pid or 0
    (horse,) = processes(stack)
    os.kill(horse, signal.SIGSTOP)
    asked = time.monotonic()
    os.kill(pool_id, signal.SIGTERM)
    await until(lambda: stack.worker.exit_code == 0, within=WITHIN)
    assert time.monotonic() - asked < WITHIN
    assert not alive(horse)
    stack.start_worker()
    await asyncio.wait_for(asyncio.gather(*reading), 60)
    check(reader, attempts=2)
