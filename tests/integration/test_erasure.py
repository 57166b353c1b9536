"""What an erasure finds, and how it comes to its end though it is cut off on the way."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import closing, contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.leftovers import in_mongo, in_redis
from tests.e2e.stack import until
from tests.records import a_run

from tailrace.api.limits.runslots import RunSlots
from tailrace.child import free_port
from tailrace.ending import writer_for
from tailrace.erasure import TOMBSTONE_SECONDS, Erasure
from tailrace.errors import NotYours
from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.jobs import Jobs
from tailrace.messages import Message, Messages
from tailrace.mongo import Database
from tailrace.runs import Run, Runs
from tailrace.sessions import Sessions
from tailrace.settings import Settings

SECRET = "the-words-of-alice"


@pytest.fixture
async def jobs(settings: Settings) -> AsyncIterator[Jobs]:
    with closing(Jobs(settings)) as jobs:
        yield jobs


@pytest.fixture
async def run(database: Database, jobs: Jobs, settings: Settings) -> Run:
    """A queued run of the session `s1`, with something in every place that holds anything of a session."""
    run = await _stored(database, "s1")
    await jobs.enqueue(run)
    return run


async def _stored(database: Database, session_id: str, *, events: int = 3) -> Run:
    await Sessions(database).claim(session_id, "alice", title=SECRET)
    run = a_run(session_id, prompt=SECRET)
    run = msgspec.structs.replace(run, trace_id=run.run_id)
    await RunSlots(database, 5).take(run)
    await Runs(database).create(run)
    writer = writer_for(database, EventLog(database, retention_seconds=3600), run)
    await writer.append([Draft(event_type="message_delta", data={"delta": SECRET})] * events)
    message = Message(
        message_id=f"{run.run_id}-0",
        session_id=session_id,
        run_id=run.run_id,
        timestamp=1.0,
        role="user",
        content=SECRET,
    )
    await Messages(database).add(message)
    await database["notes"].insert_one({"_id": session_id, "notes": [{"text": SECRET}]})
    return run


async def _swept(erasure: Erasure, database: Database, session_id: str = "s1") -> dict[str, Any]:
    """The tombstone after one sweep."""
    tombstone = await database["sessions"].find_one({"_id": session_id})
    assert tombstone is not None
    await erasure.sweep(tombstone)
    return await database["sessions"].find_one({"_id": session_id}) or {}


async def test_one_sweep_leaves_nothing_of_the_session_and_all_of_others(
    settings: Settings, database: Database, jobs: Jobs, run: Run, mongo: MongoClient[dict[str, Any]]
) -> None:
    other = await _stored(database, "s10")
    await jobs.enqueue(other)
    erasure = Erasure(settings, database, jobs)
    assert await erasure.erase("s1", "alice")
    tombstone = await _swept(erasure, database)
    assert in_mongo(mongo, settings, "'s1'", "s1:", run.run_id) == []
    assert in_redis(settings, f"s1_{run.run_id}") == []
    assert "alice" not in str(tombstone)
    assert SECRET not in str(tombstone)
    assert tombstone["expires_at"] - tombstone["erased_at"] == timedelta(seconds=TOMBSTONE_SECONDS)
    assert len(await EventLog(database, retention_seconds=1).read("s10", after=0, limit=10)) == 3
    assert await jobs.waits(other)


async def test_nobody_gets_the_id_while_the_tombstone_stands(
    settings: Settings, database: Database, jobs: Jobs, run: Run
) -> None:
    erasure, sessions = Erasure(settings, database, jobs), Sessions(database)
    assert not await erasure.erase("s1", "mallory")
    assert await erasure.erase("s1", "alice")
    assert not await erasure.erase("s1", "alice")
    for user in ("alice", "mallory", "None"):
        with pytest.raises(NotYours):
            await sessions.claim("s1", user, title="again")
        assert await sessions.owned_by("s1", user) is None
    assert await sessions.owners(["s1"]) == {}


async def test_an_erasure_that_was_cut_off_anywhere_is_finished_by_another_process(
    settings: Settings, database: Database, jobs: Jobs, run: Run, mongo: MongoClient[dict[str, Any]]
) -> None:
    class Killed(BaseException):
        pass

    async def killed(_: str) -> None:
        raise Killed

    # Between the steps; the first one comes before any of them.
    first = Erasure(settings, database, jobs, elsewhere=[killed])
    assert await first.erase("s1", "alice")
    with pytest.raises(Killed):
        await _swept(first, database)
    assert (await database["sessions"].find_one({"_id": "s1"}) or {})["jobs"] == [f"s1_{run.run_id}_1"]
    await jobs.enqueue(run)  # as if Redis had come last
    second = Erasure(settings, database, jobs)
    async with second.kept():
        async with asyncio.timeout(30):
            while in_mongo(mongo, settings, "'s1'", SECRET) or in_redis(settings, run.run_id):
                await second.again("s1")


async def test_a_document_that_is_no_run_keeps_no_other_session_from_its_erasure(
    settings: Settings, database: Database, jobs: Jobs, run: Run, mongo: MongoClient[dict[str, Any]]
) -> None:
    mongo[settings.mongodb_db]["runs"].update_one({"_id": run.run_id}, {"$set": {"state": "dreaming"}})
    await _stored(database, "s2")
    erasure = Erasure(settings, database, jobs)
    assert await erasure.erase("s1", "alice")
    assert await erasure.erase("s2", "alice")
    async with erasure.kept():
        await until(lambda: not in_mongo(mongo, settings, "'s2'"))


async def test_what_is_written_late_is_swept(
    settings: Settings, database: Database, jobs: Jobs, run: Run
) -> None:
    log = EventLog(database, retention_seconds=3600)
    frozen = writer_for(database, log, run)
    await frozen.append([Draft(event_type="message_delta", data={"delta": "before"})])
    erasure = Erasure(settings, database, jobs)
    assert await erasure.erase("s1", "alice")
    await _swept(erasure, database)
    await frozen.append([Draft(event_type="message_delta", data={"delta": "late"})])
    assert await log.read("s1", after=0, limit=10) != []
    tombstone = await _swept(erasure, database)
    assert await log.read("s1", after=0, limit=10) == []
    assert tombstone["sweeps"] == 2


async def test_a_sweep_does_not_put_off_the_next_that_was_asked_for_meanwhile(
    settings: Settings, database: Database, jobs: Jobs, run: Run
) -> None:
    erasure = Erasure(settings, database, jobs)
    assert await erasure.erase("s1", "alice")
    tombstone = await database["sessions"].find_one({"_id": "s1"})
    assert tombstone is not None
    await until_later(database, tombstone)
    await erasure.again("s1")
    asked = await database["sessions"].find_one({"_id": "s1"})
    await erasure.sweep(tombstone)
    assert await database["sessions"].find_one({"_id": "s1"}, {"sweep_at": 1}) == {
        "_id": "s1",
        "sweep_at": (asked or {})["sweep_at"],
    }


async def until_later(database: Database, tombstone: dict[str, Any]) -> None:
    """Return when the database's clock has moved on."""
    async with asyncio.timeout(30):
        later = {"_id": tombstone["_id"], "$expr": {"$lt": ["$erased_at", "$$NOW"]}}
        while await database["sessions"].find_one(later) is None:  # noqa: ASYNC110
            await asyncio.sleep(0.001)


async def test_more_events_than_are_deleted_at_once(
    settings: Settings, database: Database, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.erasure.BATCH", 7)
    await _stored(database, "s1", events=50)
    erasure = Erasure(settings, database, jobs)
    assert await erasure.erase("s1", "alice")
    await _swept(erasure, database)
    assert await database["events"].count_documents({}) == 0


async def test_a_tombstone_stays_while_redis_holds_something(
    settings: Settings, database: Database, jobs: Jobs, run: Run
) -> None:
    away = msgspec.structs.replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0")
    with closing(Jobs(away)) as unreachable:
        erasure = Erasure(away, database, unreachable)
        assert await erasure.erase("s1", "alice")
        tombstone = await _swept(erasure, database)
    assert "expires_at" not in tombstone
    assert await database["events"].count_documents({}) == 0
    tombstone = await _swept(Erasure(settings, database, jobs), database)
    assert "expires_at" in tombstone
    assert in_redis(settings, run.run_id) == []


async def test_its_traces_are_deleted_from_langfuse(
    settings: Settings, database: Database, jobs: Jobs, run: Run
) -> None:
    with _langfuse() as (url, asked):
        traced = msgspec.structs.replace(
            settings,
            langfuse_enabled=True,
            langfuse_public_key="pk",
            langfuse_secret_key="sk",
            langfuse_host=url,
        )
        erasure = Erasure(traced, database, jobs)
        assert await erasure.erase("s1", "alice")
        asked.status = 503
        assert "expires_at" not in await _swept(erasure, database)
        asked.status = 200
        assert "expires_at" in await _swept(erasure, database)
    wanted = ("/api/public/traces", "Basic cGs6c2s=", {"traceIds": [run.run_id]})
    assert asked.requests == [wanted, wanted]


class _Asked:
    status = 200

    def __init__(self) -> None:
        self.requests: list[tuple[str, str | None, Any]] = []


@contextmanager
def _langfuse() -> Iterator[tuple[str, _Asked]]:
    asked = _Asked()

    class Handler(BaseHTTPRequestHandler):
        def do_DELETE(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            asked.requests.append((self.path, self.headers["Authorization"], body))
            self.send_response(asked.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()
