"""What a join sees of a session, and what it and a prompt ask of MongoDB for it."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from litestar import Litestar
from tests.integration.api.conftest import Bearer
from tests.records import a_run

from tailrace.api.glance import Glance, glance
from tailrace.api.services import Services
from tailrace.archive.segment import Segment
from tailrace.archive.segments import Segments
from tailrace.ending import Outcome, write_end, writer_for
from tailrace.errors import NotYours
from tailrace.eventlog import Bounds, EventLog
from tailrace.events import Draft
from tailrace.mongo import Database
from tailrace.runs import Run, Runs
from tailrace.sessions import Sessions

Commands = list[dict[str, Any]]


@pytest.fixture
async def services(app: Litestar, database: Database) -> Services:
    """The API's own, with alice's session `s1`."""
    await Sessions(database).claim("s1", "alice", title="Hello")
    services: Services = app.state.services
    return services


@asynccontextmanager
async def profiled(database: Database, session_id: str) -> AsyncIterator[Commands]:
    """What MongoDB is asked about the session inside the block, in order; filled in at its end."""
    commands: Commands = []
    await database.command({"profile": 2})
    try:
        yield commands
    finally:
        await database.command({"profile": 0})
        found = await database["system.profile"].find().sort("ts").to_list(None)
        # The profile of an insert leaves out what is inserted.
        commands += [
            each for each in found if each["op"] == "insert" or f"'{session_id}'" in str(each["command"])
        ]


async def begun(database: Database, run: Run, *, deltas: int = 1) -> Run:
    """The run as it is stored, and some of its events."""
    await Runs(database).create(run)
    data = {"delta": "a", "content_type": "text", "index": 0, "offset": 0}
    writer = writer_for(database, EventLog(database, retention_seconds=3600), run)
    await writer.append([Draft(event_type="message_delta", data=data)] * deltas)
    return run


async def queued(database: Database) -> Run:
    """A run that waits for the active one, and has said so."""
    run = a_run(state="waiting", active=False)
    await Runs(database).create(run)
    writer = writer_for(database, EventLog(database, retention_seconds=3600), run)
    await writer.append([Draft(event_type="run_queued", data={"agent": "default"})])
    return run


async def finished_alone(database: Database) -> Run:
    """A run whose worker died between its `finish` and the mark that it has ended."""
    run = await begun(database, a_run())
    await end(database, run)
    await database["runs"].update_one(
        {"_id": run.run_id, "session_id": "s1"},
        {"$set": {"active": True, "state": "running", "finished_at": None, "last_seq": None}},
    )
    return run


async def end(database: Database, run: Run) -> None:
    writer = writer_for(database, EventLog(database, retention_seconds=3600), run)
    await write_end(database, writer, run, Outcome(status="success"))


async def seen(services: Services, run_id: str | None = None) -> Glance:
    found = await glance(services, "s1", "alice", run_id=run_id)
    return msgspec.structs.replace(found, newest_at=None)


async def test_a_session_without_events_is_seen(services: Services) -> None:
    assert await seen(services) == Glance(bounds=Bounds(1, 0), running=None, finish_seq=None, newest_at=None)


@pytest.mark.parametrize("mongo_driver", ["pymongo", "motor"])
async def test_the_active_run_is_seen_until_it_has_ended(services: Services, database: Database) -> None:
    run = await begun(database, a_run())
    expected = Glance(bounds=Bounds(1, 1), running=run.run_id, finish_seq=None, newest_at=None)
    assert await seen(services) == await seen(services, run.run_id) == expected
    await end(database, run)
    assert await seen(services) == Glance(bounds=Bounds(1, 3), running=None, finish_seq=None, newest_at=None)
    assert await seen(services, run.run_id) == Glance(
        bounds=Bounds(1, 3), running=None, finish_seq=3, newest_at=None
    )


async def test_a_run_whose_finish_stands_has_ended_though_it_is_not_marked_so(
    services: Services, database: Database
) -> None:
    run = await finished_alone(database)
    expected = Glance(bounds=Bounds(1, 3), running=None, finish_seq=None, newest_at=None)
    assert await seen(services) == await seen(services, run.run_id) == expected


@pytest.mark.parametrize("by_id", [False, True])
async def test_a_run_whose_finish_stands_has_ended_though_others_were_queued_behind_it(
    services: Services, database: Database, by_id: bool
) -> None:
    run = await finished_alone(database)
    for _ in range(2):
        await queued(database)
    found = await seen(services, run.run_id if by_id else None)
    assert found == Glance(bounds=Bounds(1, 5), running=None, finish_seq=None, newest_at=None)


async def test_a_run_goes_on_though_others_were_queued_behind_its_newest_event(
    services: Services, database: Database
) -> None:
    run = await begun(database, a_run())
    await end(database, run)
    run = await begun(database, a_run())
    waiting = await queued(database)
    assert (await seen(services)).running == run.run_id
    assert (await seen(services, waiting.run_id)).running == waiting.run_id


async def test_what_has_expired_is_behind_the_beginning(services: Services, database: Database) -> None:
    run = await begun(database, a_run(), deltas=3)
    await database["events"].delete_many({"session_id": "s1", "seq": {"$lt": 3}})
    assert (await seen(services)).bounds == Bounds(3, 3)
    await end(database, run)
    await database["events"].delete_many({"session_id": "s1"})
    assert (await seen(services)).bounds == Bounds(6, 5)


async def test_what_is_archived_counts(services: Services, database: Database) -> None:
    await begun(database, a_run(), deltas=3)
    await database["events"].delete_many({"session_id": "s1", "seq": {"$lt": 3}})
    times = {"first_timestamp": 0.0, "last_timestamp": 0.0}
    for first, last in ((1, 1), (2, 2)):
        segment = Segment(
            segment_id=f"s1:{first}",
            session_id="s1",
            first=first,
            last=last,
            bytes=1,
            stored_bytes=1,
            sha256="",
            runs=[],
            **times,
        )
        assert await Segments(database).add(segment)
    archiving = msgspec.structs.replace(services.settings, archive_url="s3://bucket")
    assert (await seen(dataclasses.replace(services, settings=archiving))).bounds == Bounds(1, 3)


async def test_neither_a_foreign_session_nor_a_run_of_another_is_seen(
    services: Services, database: Database
) -> None:
    await Sessions(database).claim("s2", "alice", title="Hello")
    other = await begun(database, a_run("s2"))
    for user, run_id in (("bob", None), ("alice", other.run_id), ("alice", "nobody's")):
        with pytest.raises(NotYours):
            await glance(services, "s1", user, run_id=run_id)


@pytest.mark.parametrize("by_id", [False, True])
async def test_it_is_one_query_which_reads_one_document_of_each(
    services: Services, database: Database, by_id: bool
) -> None:
    run = await begun(database, a_run(), deltas=300)
    async with profiled(database, "s1") as commands:
        assert (await seen(services, run.run_id if by_id else None)).bounds == Bounds(1, 300)
    (asked,) = commands
    # The oldest is in the index.
    assert (asked["command"]["aggregate"], asked["docsExamined"]) == ("sessions", 3)


async def test_who_reads_from_now_on_costs_no_second_query(
    api: httpx.AsyncClient, bearer: Bearer, services: Services, database: Database
) -> None:
    await begun(database, a_run(), deltas=300)
    newest = await services.log.last("s1")
    assert newest is not None
    assert (await glance(services, "s1", "alice", run_id=None)).newest_at == newest.timestamp
    path = "/api/apps/s1/agent/stream-continue"
    async with profiled(database, "s1") as commands:
        now = {"since_timestamp": f"{newest.timestamp + 1:.6f}", "follow": "none"}
        assert (await api.get(path, params=now, headers=bearer("alice"))).status_code == 204
    assert [each["command"].get("aggregate") for each in commands] == ["sessions"]


async def test_a_join_outlasts_a_primary_that_answers_with_errors(
    served: httpx.AsyncClient, bearer: Bearer, services: Services, database: Database
) -> None:
    await begun(database, a_run())
    fail = {"errorCode": 189, "failCommands": ["aggregate"], "namespace": f"{database.name}.sessions"}
    times = {"times": 6}  # the driver itself tries each query twice
    point = {"configureFailPoint": "failCommand", "mode": times, "data": fail}
    await database.client.admin.command(point)
    path = "/api/apps/s1/agent/stream-continue"
    answer = await served.get(path, params={"follow": "none"}, headers=bearer("alice"))
    assert (answer.status_code, answer.text.count("\nid: ")) == (200, 1)


async def test_a_prompt_costs_five_writes_and_two_reads(
    api: httpx.AsyncClient, bearer: Bearer, database: Database
) -> None:
    async with profiled(database, "s1") as commands:
        answer = await api.post(
            "/api/apps/s1/agent/generate",
            json={"prompt": "Hello"},
            headers={**bearer("alice"), "Prefer": "respond-async"},
        )
        assert answer.status_code == 202
    asked = [(each["op"], each["ns"].partition(".")[2]) for each in commands]
    assert asked == [
        ("command", "sessions"),  # the claim
        ("query", "events"),
        ("update", "slots"),
        ("update", "runs"),
        ("insert", "events"),
        ("update", "runs"),
        ("query", "sessions"),  # whether it was erased meanwhile
    ]
