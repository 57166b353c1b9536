"""The keeper beside a loop that is blocked, and in a process that may open nothing more."""

from __future__ import annotations

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import Any, NoReturn

import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.stack import eventually, until
from tests.integration.worker.scene import Scene

from tailrace.leases import CANCEL_GRACE_SECONDS, Leases
from tailrace.mongo import Database
from tailrace.runs import Run
from tailrace.settings import Settings
from tailrace_worker import keeper
from tailrace_worker.hold import Hold
from tailrace_worker.keeper import keeping

DEADLINE = 60.0  # seconds

_GIVEN_UP = """
import os, subprocess
from tailrace_worker.job import _die

if os.fork() == 0:
    _die()  # which leads no group
os.wait()
subprocess.Popen(["sleep", "600"])
os.write(1, b"goes on")
_die()
"""


@pytest.fixture(autouse=True)
def _beats_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.05)
    monkeypatch.setattr(keeper, "TURN_SECONDS", 0.05)


@contextmanager
def nothing_more_may_be_opened() -> Iterator[None]:
    """No event loop can be made. A limit of the kernel's would hit pytest and the driver too."""

    def refuse() -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("asyncio.events.new_event_loop", refuse)
        yield


class Place:
    """A running run, and its lease as a client sees it that needs no event loop."""

    def __init__(self, settings: Settings, database: Database, run: Run) -> None:
        self._settings = settings
        self._leases = Leases(database)
        self.run = run
        self.hold = Hold(self._leases, run)
        self._client = MongoClient[dict[str, Any]](settings.mongodb_url)
        self._runs = self._client[settings.mongodb_db]["runs"]

    def keeping(self, **options: Any) -> Any:
        return keeping(self._settings, self.run, self.hold, self._leases, **options)

    def lease(self) -> object:
        return (self._runs.find_one({"_id": self.run.run_id}) or {})["lease_expires_at"]

    def blocked_until_renewed(self) -> None:
        """Let no event loop turn in this thread until the lease has another end than now."""
        before = self.lease()
        eventually(lambda: self.lease() != before)

    def close(self) -> None:
        self._client.close()


@pytest.fixture
async def place(settings: Settings, database: Database) -> AsyncIterator[Place]:
    queued = await Scene(settings, database).queue("Hello")
    place = Place(settings, database, msgspec.structs.replace(queued, state="running"))
    yield place
    place.close()


@asynccontextmanager
async def kept(place: Place) -> AsyncIterator[None]:
    async with place.keeping():
        yield
    assert "lease" not in {thread.name for thread in threading.enumerate()}


async def test_the_lease_is_renewed_by_the_agents_loop(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: Settings) -> NoReturn:
        raise AssertionError("there is a client already")

    monkeypatch.setattr(keeper, "connect", refuse)
    before = place.lease()
    async with kept(place):
        await until(lambda: place.lease() != before)


async def test_the_lease_is_renewed_while_the_loop_is_blocked_and_after(place: Place) -> None:
    async with kept(place):
        await asyncio.sleep(0)
        place.blocked_until_renewed()
        place.blocked_until_renewed()
        before = place.lease()
        await until(lambda: place.lease() != before)


async def test_a_blocked_run_that_was_lost_or_cancelled_hears_of_it_when_it_can(place: Place) -> None:
    async with kept(place):
        place._runs.update_one({"_id": place.run.run_id}, {"$set": {"attempt": 2}})
        time.sleep(1)  # noqa: ASYNC251 - as a careless tool does
        await until(lambda: place.hold.lost)


async def test_a_process_that_may_open_nothing_more_tries_again_at_each_beat(
    place: Place, caplog: pytest.LogCaptureFixture
) -> None:
    async with kept(place):
        with nothing_more_may_be_opened():
            before = place.lease()
            eventually(lambda: caplog.messages.count("the lease was not renewed") > 1)  # and blocks the loop
            assert place.lease() == before
        place.blocked_until_renewed()


async def test_it_ends_while_tools_have_all_the_threads(place: Place) -> None:
    may_end = threading.Event()
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(1))
    tool = asyncio.create_task(asyncio.to_thread(may_end.wait, DEADLINE))
    async with kept(place):
        await asyncio.sleep(0)
    assert not tool.done()
    may_end.set()
    await tool


async def test_an_agent_that_does_not_end_is_given_up(settings: Settings, place: Place) -> None:
    place.hold.began = time.monotonic() - settings.run_timeout_seconds - CANCEL_GRACE_SECONDS - 1
    given_up = threading.Event()
    async with place.keeping(give_up=given_up.set):
        with nothing_more_may_be_opened():
            assert given_up.wait(DEADLINE)
        place.hold.disarm()


def test_a_process_that_is_given_up_ends_with_what_it_started() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", _GIVEN_UP], stdout=subprocess.PIPE, process_group=0
    ) as process:
        try:
            # Its pipe is closed when nobody has it any more.
            assert process.communicate(timeout=DEADLINE)[0] == b"goes on"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
