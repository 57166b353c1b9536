"""Cancelling, as far as no worker is needed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import httpx
import msgspec
import pytest
from redis import Redis
from tests.integration.api.conftest import ready, started
from tests.records import a_run

from tailrace.api.app import create_app
from tailrace.api.problems import MEDIA_TYPE
from tailrace.jobs import cancel_channel
from tailrace.mongo import Database
from tailrace.runs import Runs
from tailrace.sessions import Sessions
from tailrace.settings import Settings

Api = httpx.AsyncClient
Bearer = Callable[[str], dict[str, str]]

AGENT = "/api/apps/s1/agent"
CANCEL = f"{AGENT}/cancel"


async def queued(api: Api, headers: dict[str, str], prompt: str = "Hello") -> str:
    """The id of a new run; there is no worker to take it."""
    asked = {**headers, "prefer": "respond-async"}
    answer = await api.post(f"{AGENT}/generate", json={"prompt": prompt}, headers=asked)
    assert answer.status_code == 202, answer.text
    return str(answer.json()["run_id"])


async def running(api: Api, database: Database, headers: dict[str, str]) -> str:
    """The id of a run that a worker has taken."""
    run_id = await queued(api, headers)
    runs = Runs(database)
    run = await runs.get("s1", run_id)
    assert run is not None
    assert await runs.start(run.session_id, run.run_id, worker="w") is not None
    return run_id


async def types(api: Api, headers: dict[str, str]) -> list[tuple[str, str | None]]:
    """Type and status of each of the session's events."""
    events: list[dict[str, Any]] = (await api.get(f"{AGENT}/events", headers=headers)).json()["events"]
    return [(event["event_type"], event.get("status")) for event in events]


async def test_anothers_run_is_not_there_to_be_cancelled(api: Api, bearer: Bearer) -> None:
    run_id = await queued(api, bearer("bob"))
    foreign = await api.post(CANCEL, headers=bearer("alice"))
    missing = await api.post(CANCEL.replace("s1", "s9"), headers=bearer("alice"))
    for answer in (foreign, missing):
        assert (answer.status_code, answer.headers["content-type"]) == (404, MEDIA_TYPE)
    assert foreign.text == missing.text.replace("s9", "s1")
    run = (await api.get(f"{AGENT}/runs/{run_id}", headers=bearer("bob"))).json()
    assert (run["state"], run.get("cancel_requested")) == ("queued", None)


async def test_with_nothing_active_a_cancel_does_nothing(
    api: Api, bearer: Bearer, database: Database
) -> None:
    await Sessions(database).claim("s1", "alice", title="Hello")
    answer = await api.post(CANCEL, headers=bearer("alice"))
    assert answer.status_code == 200
    assert answer.json() == {"session_id": "s1", "run_id": None, "state": "idle"}
    assert answer.headers["cache-control"] == "no-store"
    assert await types(api, bearer("alice")) == []


async def test_a_queued_run_ends_at_once_and_the_session_is_free(api: Api, bearer: Bearer) -> None:
    alice = bearer("alice")
    run_id = await queued(api, alice)
    answer = await api.post(CANCEL, headers=alice)
    assert answer.status_code == 202
    assert answer.json() == {"session_id": "s1", "run_id": run_id, "state": "cancelling"}
    ended = [
        ("run_queued", None),
        ("message_complete", "complete"),  # the prompt
        ("agent_end", "cancelled"),
        ("finish", "cancelled"),
    ]
    assert await types(api, alice) == ended
    run = (await api.get(f"{AGENT}/runs/{run_id}", headers=alice)).json()
    assert (run["state"], run["active"], run["last_seq"]) == ("cancelled", False, 4)
    again = await api.post(CANCEL, headers=alice)
    assert (again.status_code, again.json()["state"]) == (200, "idle")
    assert await types(api, alice) == ended
    assert await queued(api, alice, "And now?") != run_id


async def test_a_running_run_is_flagged_and_its_worker_told(
    api: Api, bearer: Bearer, database: Database, redis_url: str
) -> None:
    run_id = await running(api, database, bearer("alice"))
    with Redis.from_url(redis_url) as redis, redis.pubsub(ignore_subscribe_messages=True) as channel:
        channel.subscribe(cancel_channel(run_id))
        assert channel.get_message(timeout=10) is None  # subscribed
        for _ in range(2):
            answer = await api.post(CANCEL, headers=bearer("alice"), json={})
            assert answer.status_code == 202
            assert answer.json() == {"session_id": "s1", "run_id": run_id, "state": "cancelling"}
            assert channel.get_message(timeout=10) is not None
    run = await Runs(database).get("s1", run_id)
    assert run is not None
    assert (run.state, run.cancel_requested) == ("running", True)
    assert await types(api, bearer("alice")) == [("run_queued", None)]  # the end is the worker's to write


async def test_without_redis_the_flag_is_enough(
    settings: Settings, bearer: Bearer, database: Database
) -> None:
    app = create_app(msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1/0"))
    async with started(app):
        await ready(app)
        transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
        async with httpx.AsyncClient(transport=transport, base_url="http://testserver.local") as api:
            run_id = await running(api, database, bearer("alice"))
            answer = await api.post(CANCEL, headers=bearer("alice"))
    assert (answer.status_code, answer.json()["run_id"]) == (202, run_id)
    run = await Runs(database).get("s1", run_id)
    assert run is not None
    assert run.cancel_requested


async def test_a_run_that_is_just_being_started_is_only_flagged(
    api: Api, bearer: Bearer, database: Database
) -> None:
    # Its `run_queued` is still to be written: a `finish` now would stand before it.
    await Sessions(database).claim("s1", "alice", title="Hello")
    run = a_run(created_at=1.0)
    await Runs(database).create(run)
    assert (await api.post(CANCEL, headers=bearer("alice"))).status_code == 202
    found = await Runs(database).get("s1", run.run_id)
    assert found == msgspec.structs.replace(run, cancel_requested=True)
    assert await types(api, bearer("alice")) == []


@pytest.mark.parametrize("body", ['{"run_id": "r"}', "[]", "{", "1", '"' + "a" * 100])
async def test_a_cancel_that_says_more_than_it_can_is_refused(api: Api, bearer: Bearer, body: str) -> None:
    run_id = await queued(api, bearer("alice"))
    headers = {**bearer("alice"), "content-type": "application/json"}
    answer = await api.post(CANCEL, headers=headers, content=body)
    assert (answer.status_code, answer.headers["content-type"]) == (400, MEDIA_TYPE)
    run = (await api.get(f"{AGENT}/runs/{run_id}", headers=bearer("alice"))).json()
    assert run["state"] == "queued"


async def test_the_document_describes_both_answers(api: Api, bearer: Bearer) -> None:
    document = (await api.get("/schema/openapi.json", headers=bearer("alice"))).json()
    operation = document["paths"]["/api/apps/{session_id}/agent/cancel"]["post"]
    assert {"200", "202", "400", "401", "404", "415", "503"} <= operation["responses"].keys()
    for status in ("200", "202"):
        schema = operation["responses"][status]["content"]["application/json"]["schema"]
        assert schema["$ref"].endswith("CancelAnswer")
