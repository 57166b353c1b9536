"""A document that somebody edited by hand is the server's trouble and not the client's."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from tests.records import a_run

from tailrace.api.problems import MEDIA_TYPE
from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.messages import Message, Messages
from tailrace.mongo import Database
from tailrace.runs import Runs
from tailrace.sessions import Sessions
from tailrace.writer import Writer

Bearer = Callable[[str], dict[str, str]]

AGENT = "/api/apps/s1/agent"


async def _always() -> bool:
    return True


async def _stored(database: Database) -> str:
    """A session of alice's with a run, an event and a message; the run's id."""
    run = a_run(state="running", active=False, finished_at=1.0)
    await Sessions(database).claim("s1", "alice", title="Hello")
    await Runs(database).create(run)
    message = Message(
        message_id="m1", session_id="s1", run_id=run.run_id, role="user", content="Hello", timestamp=1.0
    )
    await Messages(database).add(message)
    log = EventLog(database, retention_seconds=3600)
    await Writer(log, "s1", run_id=run.run_id, attempt=1, owns=_always).append([Draft(event_type="custom")])
    return run.run_id


async def test_stored_data_that_cannot_be_read_is_a_500_that_says_so_and_is_logged_once(
    api: httpx.AsyncClient, bearer: Bearer, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    run_id = await _stored(database)
    edits: list[tuple[str, dict[str, Any], str, str]] = [
        ("runs", {"attempt": "secret"}, f"/runs/{run_id}", "Run"),
        ("runs", {"state": "secret"}, "/runs", "Run"),
        ("messages", {"content": 7}, "/messages", "Message"),
        ("events", {"event_type": "secret"}, "/events", "Event"),
        ("sessions", {"owner": "alice", "created_at": "secret"}, "/events", "Session"),
    ]
    for collection, change, path, kind in edits:
        before = await database[collection].find_one({}) or {}
        await database[collection].update_one({"_id": before["_id"]}, {"$set": change})
        caplog.clear()
        with caplog.at_level(logging.WARNING):
            answer = await api.get(f"{AGENT}{path}", headers=bearer("alice"))
        assert (answer.status_code, answer.headers["content-type"]) == (500, MEDIA_TYPE), path
        assert "tored data cannot be read" in answer.json()["detail"]
        assert "secret" not in answer.text
        (record,) = caplog.records
        told = vars(record)
        assert (record.getMessage(), record.exc_info) == ("Stored data cannot be read", None)
        assert told["session_id"] == "s1"
        assert f"{kind} {before['_id']!r}" in told["error"]
        await database[collection].replace_one({"_id": before["_id"]}, before)


async def test_a_bad_body_stays_the_clients_fault(
    api: httpx.AsyncClient, bearer: Bearer, database: Database
) -> None:
    await _stored(database)
    for path in ("generate", "cancel"):
        answer = await api.post(
            f"{AGENT}/{path}",
            content=b'{"prompt": 7}',
            headers={**bearer("alice"), "content-type": "application/json"},
        )
        assert (answer.status_code, answer.headers["content-type"]) == (400, MEDIA_TYPE), answer.text
