"""A run's event loop, of either kind: what agents and their tools do in it, and a Redis that goes away."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest
from redis import Redis
from tests.e2e.stack import until
from tests.records import a_run

from tailrace.embedded import Valkey
from tailrace.settings import Settings
from tailrace_worker import progress
from tailrace_worker.groundwork import Groundwork
from tailrace_worker.hold import HAND_OVER, held
from tailrace_worker.loop import new_loop
from tailrace_worker.progress import shown
from tailrace_worker.redis_client import redis_client

Kind = Literal["uvloop", "asyncio"]
DEADLINE = 30.0  # seconds


@pytest.fixture(params=["uvloop", "asyncio"])
def worker_loop(request: pytest.FixtureRequest) -> Kind:
    kind: Kind = request.param
    return kind


@pytest.fixture
def ground(settings: Settings, worker_loop: Kind) -> Iterator[Groundwork]:
    ground = Groundwork(msgspec.structs.replace(settings, worker_loop=worker_loop))
    yield ground
    ground.close()


def test_it_is_of_the_kind_that_the_settings_ask_for(ground: Groundwork, worker_loop: Kind) -> None:
    async def look() -> None:
        assert type(asyncio.get_running_loop()).__module__.partition(".")[0] == worker_loop

    ground.run(look())


def test_where_uvloop_is_missing_it_is_asyncios(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)
    loop = new_loop(Settings())
    assert type(loop).__module__.startswith("asyncio")
    loop.close()


def test_a_tools_exit_does_not_stop_the_run(ground: Groundwork) -> None:
    told: list[str] = []

    async def leave() -> None:
        sys.exit(3)

    async def work() -> None:
        try:
            await asyncio.create_task(leave())
        except SystemExit:
            await asyncio.sleep(0.01)
            told.append("its end")

    ground.run(work())
    assert told == ["its end"]


def test_the_workers_word_is_heard_while_a_tool_waits(ground: Groundwork) -> None:
    async def work() -> None:
        # The driver leaks a socket whose connecting is cancelled.
        await ground.database.command("ping")
        async with held(ground.redis, ground.database, a_run()) as hold:
            os.kill(os.getpid(), HAND_OVER)
            await until(lambda: hold.lost)

    ground.run(work())


def test_a_tool_may_start_processes(ground: Groundwork) -> None:
    async def work() -> None:
        said = "print('here')"
        own = await asyncio.create_subprocess_exec(sys.executable, "-c", said, stdout=asyncio.subprocess.PIPE)
        assert (await own.communicate())[0] == b"here\n"
        plain = await asyncio.to_thread(subprocess.run, [sys.executable, "-c", said], check=True)
        assert plain.returncode == 0
        await ground.database.command("ping")

    ground.run(work())


def test_tools_that_block_do_not_wait_for_each_other(ground: Groundwork) -> None:
    together = threading.Barrier(20, timeout=DEADLINE)

    async def work() -> None:
        await asyncio.gather(*(asyncio.to_thread(together.wait) for _ in range(together.parties)))

    ground.run(work())


def test_nobody_waits_for_a_tool_that_goes_on_after_its_run(settings: Settings, worker_loop: Kind) -> None:
    ground = Groundwork(msgspec.structs.replace(settings, worker_loop=worker_loop))
    began, may_end, ended = threading.Event(), threading.Event(), threading.Event()

    def tool() -> None:
        began.set()
        may_end.wait(DEADLINE)
        ended.set()

    async def work() -> None:
        calling = asyncio.create_task(asyncio.to_thread(tool))
        await until(began.is_set)
        calling.cancel()

    ground.run(work())
    ground.close()
    assert not ended.is_set()
    may_end.set()
    assert ended.wait(DEADLINE)


def test_a_run_ends_though_redis_has_cut_its_connections(
    ground: Groundwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "BEAT_SECONDS", 0.02)
    tell, tries = progress._tell, 0

    async def counted(*told: Any, within: float) -> None:
        nonlocal tries
        tries += 1
        await tell(*told, within=within)

    monkeypatch.setattr(progress, "_tell", counted)
    valkey = Valkey(tmp_path / "data", log=tmp_path / "log")
    valkey.start()
    settings = msgspec.structs.replace(ground.settings, redis_url=valkey.url)

    async def work() -> None:
        async with (
            redis_client(settings) as client,
            held(client, ground.database, a_run()) as hold,
            shown(client, a_run()) as run,
        ):
            with Redis.from_url(valkey.url) as redis:
                await until(lambda: len(redis.client_list()) == 3)  # theirs, and this one
            valkey.stop()
            run.state = "still running"  # to be told at each beat, for it cannot be
            await until(lambda: tries > 5)
        assert not hold.cancelled

    ground.run(work())
    assert tries > 6
