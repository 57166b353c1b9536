"""The counts behind the limits, as several processes share them; with a Valkey that may be away."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from tests.e2e.stack import until
from tests.integration.api.limited import PER_MINUTE, RUNS, STREAMS, allowed, limited
from tests.records import a_run

from tailrace.api.limits import Limits, runslots, streams
from tailrace.embedded import Valkey
from tailrace.errors import LimitReached
from tailrace.mongo import Database
from tailrace.runs import Run, Runs
from tailrace.settings import Settings


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return limited(settings)


@pytest.fixture
async def two(settings: Settings, database: Database) -> AsyncIterator[tuple[Limits, Limits]]:
    """The limits of two processes."""
    async with Limits(settings, database).kept() as one, Limits(settings, database).kept() as other:
        yield one, other


@pytest.fixture
def own_valkey(tmp_path: Path) -> Iterator[Valkey]:
    """One that may be stopped and killed."""
    server = Valkey(tmp_path / "valkey", log=tmp_path / "valkey.log")
    server.start()
    yield server
    if server.child.pid is not None:
        os.kill(server.child.pid, signal.SIGCONT)
    server.stop()


async def test_processes_share_the_minute_of_a_user(two: tuple[Limits, Limits]) -> None:
    assert await allowed([two[nth % 2].count_run("alice") for nth in range(40)]) == PER_MINUTE
    with pytest.raises(LimitReached) as caught:
        await two[0].count_run("alice")
    assert (caught.value.limit, caught.value.allowed, caught.value.window) == ("runs-per-minute", 6, 60)
    assert 50 < caught.value.retry_after <= 60
    await two[1].count_run("bob")


async def test_processes_share_the_streams_of_a_user(two: tuple[Limits, Limits]) -> None:
    assert await allowed([two[nth % 2].stream("alice") for nth in range(40)]) == STREAMS
    await two[1].stream("bob")


async def test_a_stream_that_ends_makes_room_in_every_process(two: tuple[Limits, Limits]) -> None:
    held = [await two[0].stream("alice") for _ in range(STREAMS)]
    with pytest.raises(LimitReached, match="4 streams"):
        await two[1].stream("alice")
    held.pop().close()
    await opens(two[1], "alice")
    with pytest.raises(LimitReached):
        await two[0].stream("alice")
    for each in held:
        each.close()
    for _ in range(STREAMS - 1):
        await opens(two[1], "alice")


async def opens(limits: Limits, user: str, within: float = 30.0) -> None:
    """Return when a stream of the user was opened."""
    async with asyncio.timeout(within):
        while True:
            try:
                await limits.stream(user)
            except LimitReached:
                await asyncio.sleep(0.01)
            else:
                return


async def test_streams_of_a_process_that_is_gone_do_not_count(settings: Settings, database: Database) -> None:
    async with Limits(settings, database).kept() as one:
        for _ in range(STREAMS):
            await one.stream("alice")
    async with Limits(settings, database).kept() as other:
        assert await allowed([other.stream("alice") for _ in range(10)]) == STREAMS


async def test_streams_of_a_process_that_hangs_stop_counting_and_count_again(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with Limits(settings, database).kept() as one, Limits(settings, database).kept() as other:
        monkeypatch.setattr(streams, "LEASE_SECONDS", 1)
        for _ in range(STREAMS):
            await one.stream("alice")
        assert one._streams is not None
        renewed = one._streams._renewed

        async def hangs() -> int | None:
            return None

        one._streams._renewed = hangs  # type: ignore[method-assign]
        await opens(other, "alice")
        one._streams._renewed = renewed  # type: ignore[method-assign]
        async with asyncio.timeout(30):
            while True:
                try:
                    (await other.stream("alice")).close()
                except LimitReached:
                    break
                await asyncio.sleep(0.05)


async def test_processes_share_the_unfinished_runs_of_a_user(
    two: tuple[Limits, Limits], database: Database
) -> None:
    runs = Runs(database)

    async def start(nth: int) -> Run:
        run = a_run(f"s{nth}")
        await two[nth % 2].take_slot(run)
        await runs.create(run)
        return run

    results = await asyncio.gather(*(start(nth) for nth in range(40)), return_exceptions=True)
    started = [each for each in results if isinstance(each, Run)]
    assert len(started) == RUNS
    assert all(isinstance(each, (Run, LimitReached)) for each in results)
    await two[0].take_slot(a_run("other", user="bob"))

    with pytest.raises(LimitReached, match="3 runs"):
        await start(50)
    await runs.end(started[0], status="success", last_seq=2, error=None)
    await start(51)
    with pytest.raises(LimitReached):
        await start(52)


async def test_a_run_that_was_never_stored_frees_its_slot_in_time(
    two: tuple[Limits, Limits], database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    for nth in range(RUNS):
        await two[0].take_slot(a_run(f"s{nth}"))
    with pytest.raises(LimitReached):
        await two[0].take_slot(a_run())
    monkeypatch.setattr(runslots, "UNUSED_SECONDS", 0)
    await two[0].take_slot(a_run())
    found = await database["slots"].find_one({"_id": "alice"})
    assert found is not None
    assert len(found["slots"]) == 1


async def test_a_user_may_have_any_name(two: tuple[Limits, Limits]) -> None:
    for user in ("$where", "a.b", "LIMITER/x/6/1/minute", "{x}", "ü 🌊", "*"):
        await two[0].count_run(user)
        (await two[0].stream(user)).close()
        await two[0].take_slot(a_run(user=user))
        assert await allowed([two[1].take_slot(a_run(user=user)) for _ in range(RUNS)]) == RUNS - 1


@pytest.mark.parametrize("how", [signal.SIGSTOP, signal.SIGKILL], ids=["hung", "killed"])
async def test_without_redis_nothing_is_refused_and_nothing_waits_long(
    settings: Settings,
    database: Database,
    own_valkey: Valkey,
    caplog: pytest.LogCaptureFixture,
    how: signal.Signals,
) -> None:
    caplog.set_level(logging.INFO, "tailrace.api.limits")
    own = msgspec.structs.replace(settings, redis_url=own_valkey.url)
    async with Limits(own, database).kept() as limits:
        for _ in range(STREAMS):
            await limits.stream("alice")
        assert await allowed([limits.count_run("alice") for _ in range(10)]) == PER_MINUTE
        if how is signal.SIGSTOP:
            os.kill(own_valkey.child.pid or 0, how)
        else:
            own_valkey.child.kill()

        began = time.monotonic()
        for _ in range(50):
            (await limits.stream("alice")).close()
            await limits.count_run("alice")
        assert time.monotonic() - began < 10  # 100 questions; each alone would have waited half a second
        await limits.take_slot(a_run())  # MongoDB's, and not open

        if how is signal.SIGSTOP:
            os.kill(own_valkey.child.pid or 0, signal.SIGCONT)
        else:
            own_valkey.start()
        await until(lambda: not limits._store.away)
        async with asyncio.timeout(30):
            while await allowed([limits.stream("alice")]):  # noqa: ASYNC110 - Redis is told a moment later
                await asyncio.sleep(0.1)
    words = [record.message for record in caplog.records]
    assert words == [
        "Redis does not answer: runs and streams go on without limits",
        "Redis is back: the limits hold again",
    ]


async def test_nothing_is_asked_where_there_is_no_limit(settings: Settings, database: Database) -> None:
    free = msgspec.structs.replace(
        settings,
        redis_url="redis://127.0.0.1:1/0",
        max_runs_per_minute=0,
        max_concurrent_runs=0,
        max_concurrent_streams=0,
    )
    async with Limits(free, database).kept() as limits:
        for _ in range(100):
            await limits.count_run("alice")
            await limits.stream("alice")
            await limits.take_slot(a_run())
    assert await database["slots"].count_documents({}) == 0
