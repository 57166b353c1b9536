"""How long events are kept: by a token's claim, by the session, and as it is changed later."""

from __future__ import annotations

import asyncio
import json
import math
from datetime import UTC, datetime
from typing import Any

import jwt
import msgspec
import pytest
from click.testing import CliRunner
from tests.integration.worker.scene import Scene

from tailrace.cli import main
from tailrace.dev import child_environ
from tailrace.errors import NotYours, Unauthorized
from tailrace.eventlog import EventLog
from tailrace.mongo import Database
from tailrace.retention import Retention
from tailrace.sessions import Sessions
from tailrace.settings import Settings
from tailrace.tokens import Verifier, mint

DAY = 86_400


def tell_nobody(done: int, all_: int) -> None: ...


async def kept_seconds(database: Database, session_id: str = "s1") -> set[int | None]:
    """For how long the session's events are kept from their time on."""
    found = await database["events"].find({"session_id": session_id}).to_list(None)
    return {
        round(each["expires_at"].replace(tzinfo=UTC).timestamp() - each["timestamp"])
        if each["expires_at"]
        else None
        for each in found
    }


def test_the_claim_says_how_long_at_most_as_long_as_the_settings_allow(settings: Settings) -> None:
    few = msgspec.structs.replace(settings, max_retention_seconds=30.0 * DAY)
    verifier = Verifier.from_settings(few)
    asked = {None: None, 60: 60.0, 7.5 * DAY: 7.5 * DAY, 31 * DAY: 30.0 * DAY, 10**400: 30.0 * DAY}
    for claim, kept in asked.items():
        token = mint(few, user="alice", retention_seconds=claim)
        assert verifier.verify(token).retention_seconds == kept


@pytest.mark.parametrize("claim", ["7", True, 0, -1, 59.9, math.inf, math.nan, [1], {}])
def test_a_claim_that_means_nothing_is_refused(settings: Settings, claim: Any) -> None:
    claims = jwt.decode(mint(settings, user="alice"), options={"verify_signature": False})
    token = jwt.encode({**claims, "tailrace_retention": claim}, str(settings.jwt_secret), algorithm="HS256")
    with pytest.raises(Unauthorized, match="tailrace_retention"):
        Verifier.from_settings(settings).verify(token)


async def test_a_session_keeps_what_its_first_prompt_said(database: Database) -> None:
    sessions = Sessions(database)
    first = await sessions.claim("s1", "alice", title="", retention_seconds=3600.0)
    later = await sessions.claim("s1", "alice", title="", retention_seconds=60.0)
    assert (first.retention_seconds, later.retention_seconds) == (3600.0, 3600.0)
    assert (await sessions.claim("s2", "alice", title="")).retention_seconds is None


async def test_a_run_s_events_are_kept_as_its_session_says(settings: Settings, database: Database) -> None:
    scene = Scene(settings, database)
    await scene.perform("hello", retention_seconds=3600.0)
    assert await kept_seconds(database) == {3600}
    scene.session_id = "s2"
    await scene.perform("hello", retention_seconds=0.0)
    assert await kept_seconds(database, "s2") == {None}
    scene.session_id = "s3"
    await scene.perform("hello")
    assert await kept_seconds(database, "s3") == {7 * DAY}


async def test_a_change_counts_for_what_there_is_and_for_what_comes(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.retention.BATCH", 10)
    scene = Scene(settings, database)
    events = await scene.perform("write 30 words")
    waiting = await scene.queue("write 5 words")
    retention, told = Retention(settings, database), []
    await retention.change("s1", 2.0 * DAY, told=lambda done, all_: told.append((done, all_)))
    assert await kept_seconds(database) == {2 * DAY}
    assert told[-1] == (len(events), len(events))
    assert len(told) == -(-len(events) // 10)
    assert (await scene.run(waiting.run_id)).retention_seconds == 2.0 * DAY
    assert (await retention.of("s1")).retention_seconds == 2.0 * DAY
    await retention.change("s1", 0.0, told=tell_nobody)
    assert await kept_seconds(database) == {None}
    await retention.change("s1", None, told=tell_nobody)
    assert await kept_seconds(database) == {7 * DAY}
    with pytest.raises(NotYours):
        await retention.change("s2", 0.0, told=tell_nobody)


async def test_the_command_shows_and_changes(settings: Settings, database: Database) -> None:
    scene = Scene(settings, database)
    events = await scene.perform("hello")

    async def run(*arguments: str, status: int = 0) -> str:
        # In a thread, for it has an event loop of its own.
        done = await asyncio.to_thread(
            CliRunner().invoke, main, ["retention", *arguments], env=child_environ(settings)
        )
        assert done.exit_code == status, done.output
        return done.stdout

    shown = json.loads(await run("--json"))
    assert shown["sessions"] == {"604800": 1}
    assert (shown["events"], shown["expire_within_a_day"], shown["overdue"]) == (len(events), 0, 0)
    assert "0.5 days" in await run("s1", "--days", "0.5")
    assert json.loads(await run("--json"))["expire_within_a_day"] == len(events)
    assert "ever" in await run("s1", "--forever")
    assert json.loads(await run("--json"))["without_expiry"] == len(events)
    assert "7 days" in await run("s1", "--default")
    await run("nobody", "--days", "1", status=1)
    await run("--days", "1", status=2)
    await run("s1", "--days", "1", "--forever", status=2)


async def test_an_event_of_a_log_that_keeps_for_ever_has_no_expiry(database: Database) -> None:
    log = EventLog(database, retention_seconds=60)
    assert log.expires_at(0.0) == datetime.fromtimestamp(60.0, UTC)
    assert log.kept_for(0).expires_at(0.0) is None
