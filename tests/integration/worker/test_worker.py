"""Real worker processes on a real Valkey: jobs come in, runs finish, whatever is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

import msgspec
from redis import Redis
from rq import Queue, Worker
from rq.job import Job, JobStatus
from rq.serializers import JSONSerializer
from rq.worker import WorkerStatus
from tests.integration.worker.scene import Scene, only, types

from tailrace.embedded import Valkey
from tailrace.jobs import Jobs, job_id
from tailrace.leases import Leases
from tailrace.mongo import Database
from tailrace.runs import Runs
from tailrace.settings import Settings

T = TypeVar("T")
DEADLINE = 120.0  # seconds; a busy machine needs many of them
AGENTS = "with_tool=tests.integration.worker.agents:with_tool"


async def eventually(condition: Callable[[], Awaitable[T]]) -> T:
    """The first true value of `condition()`."""
    deadline = time.monotonic() + DEADLINE
    while not (value := await condition()):
        assert time.monotonic() < deadline, "not in time"
        await asyncio.sleep(0.02)
    return value


@contextmanager
def workers(settings: Settings, count: int = 1) -> Iterator[subprocess.Popen[bytes]]:
    """`python -m tailrace_worker -n COUNT`, ended by SIGTERM."""
    command = [sys.executable, "-m", "tailrace_worker", "-n", str(count)]
    environ = {**os.environ, **settings.to_env(), "LANGFUSE_ENABLED": "false"}
    with subprocess.Popen(command, env=environ) as process:
        try:
            yield process
        finally:
            process.send_signal(signal.SIGTERM)
            assert process.wait(DEADLINE) == 0


async def enqueue(scene: Scene, prompt: str, *, agent: str = "default") -> str:
    run = await scene.queue(prompt, agent=agent)
    jobs = Jobs(scene.settings)
    await jobs.enqueue(run)
    jobs.close()
    return run.run_id


async def finished(scene: Scene, run_id: str) -> bool:
    return (await scene.run(run_id)).finished_at is not None


def children(pid: int) -> list[int]:
    """The processes that `pid` started and that are alive."""
    found = subprocess.run(["ps", "-o", "pid=,stat=", "--ppid", str(pid)], capture_output=True, text=True)  # noqa: PLW1510
    lines = [line.split() for line in found.stdout.splitlines()]
    return [int(child) for child, state in lines if not state.startswith("Z")]


async def child_of(pid: int) -> int:
    async def first() -> int:
        return next(iter(children(pid)), 0)

    return await eventually(first)


async def gone(parent: int, child: int) -> bool:
    return child not in children(parent)


async def idle(scene: Scene) -> bool:
    """Whether the only worker awaits its next job."""
    with Redis.from_url(scene.settings.redis_url) as redis:
        return [worker.get_state() for worker in Worker.all(connection=redis)] == [WorkerStatus.IDLE]


async def handed_on(scene: Scene, run_id: str) -> bool:
    """Whether a worker has given the run to a process, and looks after that now."""
    job = job_id(await scene.run(run_id))
    with Redis.from_url(scene.settings.redis_url) as redis:
        return Job.fetch(job, connection=redis, serializer=JSONSerializer).last_heartbeat is not None


async def test_an_enqueued_run_finishes(settings: Settings, database: Database) -> None:
    scene = Scene(settings, database)
    with workers(scene.settings):
        run_id = await enqueue(scene, "what is 6*7?")
        await eventually(lambda: finished(scene, run_id))
    events = await scene.events()
    assert events[-1].data["status"] == "success"
    assert only(events, "tool_end").data["output"] == "42"


async def test_a_killed_horse_ends_in_one_finish_that_says_lost(
    settings: Settings, database: Database
) -> None:
    scene = Scene(settings, database, offline_tokens_per_second=50.0, max_attempts=1)
    with workers(scene.settings) as process:
        run_id = await enqueue(scene, "write 10000 words")

        async def streaming() -> bool:
            return "message_delta" in types(await scene.events())

        await eventually(streaming)
        worker = await child_of(process.pid)
        os.kill(await child_of(worker), signal.SIGKILL)
        started = time.monotonic()
        await eventually(lambda: finished(scene, run_id))
        assert time.monotonic() - started < 5
        events = await scene.events()
        assert types(events)[-3:] == ["run_error", "agent_end", "finish"]
        assert only(events, "finish").data["status"] == "lost"
        assert "SIGKILL" in only(events, "run_error").data["message"]
        # The worker goes on.
        scene.settings = msgspec.structs.replace(scene.settings, offline_tokens_per_second=1000.0)
        again = await enqueue(scene, "what is 2+2?")
        await eventually(lambda: finished(scene, again))


async def test_a_spare_that_is_killed_costs_no_run(settings: Settings, database: Database) -> None:
    scene = Scene(settings, database)
    with workers(scene.settings) as process:
        worker = await child_of(process.pid)
        for _ in range(2):
            await eventually(lambda: idle(scene))  # and its only child the spare, no dying horse
            os.kill(spare := await child_of(worker), signal.SIGKILL)
            await eventually(lambda spare=spare: gone(worker, spare))  # type: ignore[misc]
            run_id = await enqueue(scene, "what is 2+2?")
            await eventually(lambda run_id=run_id: finished(scene, run_id))  # type: ignore[misc]
    assert {event.attempt for event in await scene.events()} == {1}
    assert [event.data["status"] for event in await scene.events() if event.event_type == "finish"] == [
        "success", "success",
    ]  # fmt: skip


async def test_a_run_whose_process_was_killed_before_it_took_it_has_another_attempt(
    settings: Settings, database: Database
) -> None:
    scene = Scene(settings, database)
    with workers(scene.settings) as process:
        worker = await child_of(process.pid)
        await eventually(lambda: idle(scene))
        os.kill(spare := await child_of(worker), signal.SIGSTOP)
        run_id = await enqueue(scene, "what is 2+2?")
        await eventually(lambda: handed_on(scene, run_id))
        os.kill(spare, signal.SIGKILL)
        # By its worker, at once: no API is here to miss it.
        await eventually(lambda: finished(scene, run_id))
    assert only(await scene.events(), "finish").data["status"] == "success"
    assert (await scene.run(run_id)).attempt == 2


async def test_a_horse_dies_with_its_worker_and_another_worker_starts(
    settings: Settings, database: Database
) -> None:
    scene = Scene(settings, database, offline_tokens_per_second=50.0)
    with workers(scene.settings) as process:
        run_id = await enqueue(scene, "write 10000 words")
        worker = await child_of(process.pid)
        horse = await child_of(worker)
        os.kill(worker, signal.SIGKILL)

        async def horse_gone() -> bool:
            try:
                os.kill(horse, 0)
            except ProcessLookupError:
                return True
            return False

        await eventually(horse_gone)

        async def another() -> bool:
            return any(child != worker for child in children(process.pid))

        await eventually(another)
        assert (await scene.run(run_id)).active  # recovering it is the lease's part


async def test_a_warm_shutdown_lets_the_run_finish(settings: Settings, database: Database) -> None:
    scene = Scene(settings, database, offline_tokens_per_second=100.0)
    with workers(scene.settings, 2) as process:
        run_id = await enqueue(scene, "write 150 words")

        async def streaming() -> bool:
            return "message_delta" in types(await scene.events())

        await eventually(streaming)
        process.send_signal(signal.SIGTERM)
        assert process.wait(DEADLINE) == 0
    assert (await scene.run(run_id)).state == "success"


async def in_tool(scene: Scene) -> bool:
    return "tool_start" in types(await scene.events())


async def test_a_tool_that_blocks_the_loop_for_longer_than_a_lease_keeps_its_run(
    settings: Settings, database: Database
) -> None:
    scene = Scene(settings, database, agents=AGENTS)
    hung = Scene(settings, database, agents=AGENTS)
    hung.session_id = "s2"
    with workers(scene.settings, 2):
        run_id = await enqueue(scene, "block", agent="with_tool")
        hung_id = await enqueue(hung, "hang", agent="with_tool")
        await eventually(lambda: in_tool(hung))
        # Nobody but the process itself can end it here: there is no API that sends a stop.
        await Runs(database).request_cancel("s2")
        while not await finished(scene, run_id):
            assert run_id not in {run.run_id for run in await Leases(database).run_out(limit=10)}
            await asyncio.sleep(0.1)
        await eventually(lambda: finished(hung, hung_id))
    events = await scene.events()
    assert only(events, "finish").data["status"] == "success"
    assert only(events, "tool_end").data["output"] == "still here"
    assert {event.attempt for event in events} == {1}
    assert only(await hung.events(), "finish").data["status"] == "cancelled"


async def test_an_agent_that_hangs_ends_with_a_timeout_and_is_not_tried_again(
    settings: Settings, database: Database
) -> None:
    scene = Scene(settings, database, agents=AGENTS, run_timeout_seconds=1.0)
    with workers(scene.settings):
        run_id = await enqueue(scene, "hang", agent="with_tool")
        await eventually(lambda: finished(scene, run_id))
    events = await scene.events()
    assert types(events)[-3:] == ["run_error", "agent_end", "finish"]
    assert only(events, "run_error").data["code"] == "timeout"
    assert only(events, "finish").data["status"] == "timeout"
    assert "attempt_superseded" not in types(events)


async def test_the_workers_take_jobs_side_by_side(settings: Settings, database: Database) -> None:
    with workers(settings, 2) as process:

        async def two() -> bool:
            with Redis.from_url(settings.redis_url) as redis:
                return len(Worker.all(connection=redis)) == 2

        await eventually(two)
        assert len(children(process.pid)) == 2


def test_help_teaches() -> None:
    shown = subprocess.run(
        [sys.executable, "-m", "tailrace_worker", "--help"], capture_output=True, text=True, check=True
    )
    assert "TAILRACE_AGENTS" in shown.stdout
    assert "-n N" in shown.stdout


def test_a_bad_setting_is_named() -> None:
    environ = {**os.environ, "REDIS_URL": "nonsense"}
    ended = subprocess.run(
        [sys.executable, "-m", "tailrace_worker"], capture_output=True, text=True, env=environ, check=False
    )
    assert ended.returncode == 2
    assert "REDIS_URL" in ended.stderr


async def test_a_run_outlives_redis_and_the_workers_come_back(
    settings: Settings, database: Database, tmp_path: Path
) -> None:
    first = Valkey(tmp_path / "data", log=tmp_path / "valkey.log")
    second = Valkey(tmp_path / "data", log=tmp_path / "valkey.log", port=first.port)
    first.start()
    scene = Scene(settings, database, redis_url=first.url, offline_tokens_per_second=50.0)
    with workers(scene.settings):
        run_id = await enqueue(scene, "write 300 words")

        async def streaming() -> bool:
            return "message_delta" in types(await scene.events())

        await eventually(streaming)
        first.stop()
        await eventually(lambda: finished(scene, run_id))
        assert (await scene.run(run_id)).state == "success"
        told = len(await scene.events())
        second.port = first.port
        second.start()
        with Redis.from_url(first.url) as redis:
            job = Job.fetch(f"s1_{run_id}_1", connection=redis, serializer=JSONSerializer)

            async def noted() -> bool:
                return job.get_status() in (JobStatus.FINISHED, JobStatus.FAILED)

            await eventually(noted)
            assert job.get_status() == JobStatus.FINISHED
            next_id = await enqueue(scene, "what is 2+2?")
            await eventually(lambda: finished(scene, next_id))
            assert len(await scene.events()) == told + len(await scene.events(next_id))  # not performed again
            queue = Queue(settings.queue, connection=redis, serializer=JSONSerializer)
            assert queue.failed_job_registry.get_job_ids() == []
    second.stop()
