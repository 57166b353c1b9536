"""rq-dashboard over a real queue: what an operator sees of a run, and a failed job that is enqueued again."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import closing
from typing import Any
from uuid import uuid4

import httpx
import msgspec
import pytest
from rq.job import Job
from rq.serializers import JSONSerializer
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack, eventually, seen, until

from tailrace.child import free_port
from tailrace.dashboard import dashboard
from tailrace.jobs import connect_redis


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = msgspec.structs.replace(shared_settings(mongo_url, redis_url), offline_tokens_per_second=60.0)
    with Stack(settings) as stack:
        yield stack


@pytest.fixture(scope="module")
def address(stack: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the dashboard is."""
    port = free_port()
    child = dashboard(stack.settings, port=port, log=tmp_path_factory.mktemp("dashboard") / "log")
    child.start()
    url = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        assert child.running, child.obituary()
        try:
            return httpx.get(url, trust_env=False, timeout=30).status_code == 200
        except httpx.TransportError:
            return False

    try:
        eventually(answers)
        yield url
    finally:
        child.stop()


@pytest.fixture
async def page(address: str) -> AsyncIterator[httpx.AsyncClient]:
    """A client of the dashboard."""
    async with httpx.AsyncClient(
        base_url=address, trust_env=False, timeout=30, follow_redirects=True
    ) as client:
        yield client


async def _job(page: httpx.AsyncClient, queue: str, registry: str, sid: str) -> dict[str, Any]:
    """The session's job, as soon as it is in the registry."""

    async def listed() -> dict[str, Any]:
        jobs = (await page.get(f"/0/data/jobs/{queue}/{registry}/50/asc/1.json")).json()["jobs"]
        return next((dict(job) for job in jobs if sid in job["id"]), {})

    return await seen(listed)


async def test_an_operator_finds_a_run_by_its_session_and_reads_what_it_is(
    stack: Stack, page: httpx.AsyncClient
) -> None:
    sid, queue = f"s{uuid4().hex[:8]}", stack.settings.queue
    reader = stack.reader(sid)
    await reader.generate("What is 6 * 7?")
    run_id = reader.events[0].json["run_id"]
    job = await _job(page, queue, "finished", sid)
    assert job["id"] == f"{sid}_{run_id}_1"
    assert job["description"] == f"run {run_id} of session {sid}, agent default"
    jobs = f"/0/view/jobs/{queue}/finished/50/asc/1"
    for path in ("/0/view/queues", "/0/view/workers", jobs, f"/0/view/job/{job['id']}"):
        assert (await page.get(path)).status_code == 200, path
    queues = (await page.get("/0/data/queues.json")).json()["queues"]
    assert queue in {each["name"] for each in queues}
    assert (await page.get("/0/data/workers.json")).json()["workers"]
    assert (await page.get(f"/0/data/job/{job['id']}.json")).json()["status"] == "finished"


async def test_an_operator_watches_a_run_go_on_and_sees_how_it_ended(
    stack: Stack, page: httpx.AsyncClient
) -> None:
    sid, queue = f"s{uuid4().hex[:8]}", stack.settings.queue
    reader = stack.reader(sid)
    reading = asyncio.create_task(reader.generate("write 300 words"))
    job_id = (await _job(page, queue, "started", sid))["id"]

    async def shown() -> dict[str, Any]:
        job = (await page.get(f"/0/data/job/{job_id}.json")).json()
        return dict(json.loads(job["metadata"]))

    def read_by_rq() -> dict[str, Any]:
        with closing(connect_redis(stack.settings)) as redis:
            return dict(Job.fetch(job_id, connection=redis, serializer=JSONSerializer).get_meta())

    counts: set[int] = set()

    async def beaten_twice() -> bool:
        meta = await shown()
        if meta["state"] == "running" and meta["events"]:
            counts.add(meta["events"])
        return len(counts) == 2

    async def ended_meta() -> dict[str, Any]:
        meta = await shown()
        return {} if meta["state"] == "running" else meta

    await seen(beaten_twice)
    running = read_by_rq()
    assert (running["session_id"], running["attempt"]) == (sid, 1)
    assert running["worker"]
    await reading
    ended = await seen(ended_meta)
    assert ended["state"] == "success"
    # Neither `run_queued`, which stood before, nor `agent_end` and `finish`, which close it.
    assert ended["events"] == len(reader.events) - 3
    assert read_by_rq() == ended


async def test_a_failed_job_that_is_requeued_does_its_run_no_harm(
    stack: Stack, page: httpx.AsyncClient
) -> None:
    sid, queue = f"s{uuid4().hex[:8]}", stack.settings.queue
    reader = stack.reader(sid)
    reading = asyncio.create_task(reader.generate("write 100 words"))
    await until(lambda: sum(frame.event == "delta" for frame in reader.frames) >= 10)
    os.kill(_horse(stack), signal.SIGKILL)
    job = await _job(page, queue, "failed", sid)
    again = await page.post(f"/job/{job['id']}/requeue")
    assert again.json() == {"status": "OK"}
    await asyncio.wait_for(reading, timeout=60)
    await _job(page, queue, "finished", job["id"])

    after = stack.reader(sid)
    await after.read()
    assert [frame.data for frame in after.events] == [frame.data for frame in reader.events]
    assert [frame.json["status"] for frame in after.events if frame.event == "finish"] == ["success"]


def _horse(stack: Stack) -> int:
    """The process that performs the one run."""
    listed = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {int(pid): int(parent) for pid, parent in re.findall(r"(\d+)\s+(\d+)", listed)}
    (horse,) = (pid for pid, parent in parents.items() if parents.get(parent) == stack.worker.pid)
    return horse
