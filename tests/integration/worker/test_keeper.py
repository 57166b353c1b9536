"""The keeper in a process that may open nothing more: it ends, and until then tries again at each beat."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

import msgspec
import pytest
from tests.e2e.stack import seen, until
from tests.integration.worker.scene import Scene
from tests.records import a_run

from tailrace.leases import CANCEL_GRACE_SECONDS, Leases
from tailrace.mongo import Database
from tailrace.runs import Run
from tailrace.settings import Settings
from tailrace_worker import keeper
from tailrace_worker.hold import Hold
from tailrace_worker.keeper import keeping


@pytest.fixture(autouse=True)
def _beats_are_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keeper, "BEAT_SECONDS", 0.05)


@contextmanager
def nothing_more_may_be_opened() -> Iterator[None]:
    """No event loop can be made. A limit of the kernel's would hit pytest and the driver too."""

    def refuse() -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("asyncio.events.new_event_loop", refuse)
        yield


async def _running(scene: Scene) -> Run:
    return msgspec.structs.replace(await scene.queue("Hello"), state="running")


async def test_it_ends(settings: Settings, database: Database) -> None:
    run = a_run()
    with nothing_more_may_be_opened():
        async with keeping(settings, run, Hold(Leases(database), run)):
            pass
    assert "lease" not in {thread.name for thread in threading.enumerate()}


async def test_the_run_goes_on_and_its_lease_is_renewed_as_soon_as_that_is_possible(
    settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    run = await _running(Scene(settings, database))

    async def lease() -> object:
        found = await database["runs"].find_one({"_id": run.run_id}) or {}
        return found["lease_expires_at"]

    before = await lease()
    with nothing_more_may_be_opened():
        keeping_it = keeping(settings, run, Hold(Leases(database), run))
        await keeping_it.__aenter__()
        await until(lambda: caplog.messages.count("the lease was not renewed") > 1)
    assert await lease() == before

    async def renewed() -> bool:
        return await lease() != before

    await seen(renewed)
    await keeping_it.__aexit__(None, None, None)


async def test_an_agent_that_does_not_end_is_given_up_all_the_same(
    settings: Settings, database: Database
) -> None:
    run = a_run()
    hold = Hold(Leases(database), run)
    hold.began = time.monotonic() - settings.run_timeout_seconds - CANCEL_GRACE_SECONDS - 1
    given_up = threading.Event()
    with nothing_more_may_be_opened():
        async with keeping(settings, run, hold, give_up=given_up.set):
            assert await asyncio.to_thread(given_up.wait, 30)
