"""The reaper, where something keeps it from its work."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from tests.e2e.stack import until
from tests.records import a_run

from tailrace import reaper
from tailrace.jobs import Jobs
from tailrace.mongo import Database
from tailrace.presence import Presence
from tailrace.reaper import reaping
from tailrace.runs import Run, Runs
from tailrace.settings import Settings

LONG_AGO = datetime.now(UTC) - timedelta(hours=1)


@pytest.fixture(autouse=True)
def _often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reaper, "LOOK_SECONDS", 0.02)


@pytest.fixture
def without_redis(settings: Settings) -> Iterator[Jobs]:
    with closing(Jobs(msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1/0"))) as jobs:
        yield jobs


async def stored(database: Database, run: Run, **changes: Any) -> Run:
    """The run, in MongoDB, with changes to its document."""
    await Runs(database).create(run)
    own = {"_id": run.run_id, "session_id": run.session_id}
    await database["runs"].update_one(own, {"$set": changes})
    return run


async def becomes(database: Database, run: Run, **wanted: Any) -> None:
    """Return when the run's document says so."""
    async with asyncio.timeout(30):
        while await database["runs"].find_one({"_id": run.run_id, **wanted}) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.02)


async def test_a_document_that_is_no_run_is_told_of_once_and_keeps_no_other_waiting(
    settings: Settings, database: Database, without_redis: Jobs, caplog: pytest.LogCaptureFixture
) -> None:
    lost = await stored(database, a_run("s1", first_seq=1), state="running", lease_expires_at=LONG_AGO)
    strange = await stored(database, a_run("s2"), state="dreaming", lease_expires_at=LONG_AGO)
    async with reaping(settings, database, without_redis, readers=tuple):
        await becomes(database, lost, attempt=2)
        await database["runs"].update_one({"_id": lost.run_id}, {"$set": {"lease_expires_at": LONG_AGO}})
        await until(lambda: caplog.messages.count("The reaper waits") > 2)  # for Redis, at each look
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert strange.run_id in told.__dict__["error"]
    assert told.__dict__["session_id"] == "s2"


async def test_a_run_that_waited_for_long_is_not_gone_when_its_turn_comes(database: Database) -> None:
    waiting = a_run("s1", state="waiting", active=False, cancel_after=0.0)
    await stored(database, waiting, last_reader_at=LONG_AGO)
    assert await Runs(database).promote("s1") is not None
    presence = Presence(database)
    assert [await presence.look(()), await presence.look(())] == [[], []]


async def test_only_a_run_that_is_found_without_a_reader_twice_is_gone(database: Database) -> None:
    left = await stored(database, a_run("s1", cancel_after=0.0), last_reader_at=LONG_AGO)
    presence = Presence(database)
    found = [await presence.look(()), await presence.look(()), await presence.look(["s1"])]
    assert [[run.run_id for run in each] for each in found] == [[], [left.run_id], []]


async def test_without_redis_readers_are_seen_and_lost_runs_end(
    settings: Settings, database: Database, without_redis: Jobs
) -> None:
    queued = a_run("s1", first_seq=1, cancel_after=0.0)
    past = {"lease_expires_at": LONG_AGO - timedelta(hours=1), "last_reader_at": LONG_AGO}
    await stored(database, queued, **past)
    told = {"state": "running", "cancel_requested": True, "lease_expires_at": LONG_AGO}
    lost = await stored(database, a_run("s2", first_seq=1), **told)
    async with reaping(settings, database, without_redis, readers=lambda: ["s1"]):
        await becomes(database, lost, state="cancelled")
        await becomes(database, queued, last_reader_at={"$gt": LONG_AGO})
    assert (await database["runs"].find_one({"_id": queued.run_id}) or {})["state"] == "queued"
