"""The pages of a session's history."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import httpx
import msgspec
import pytest
from tests.records import a_run

from tailrace.api import history
from tailrace.api.wire import WireEvent
from tailrace.eventlog import EventLog
from tailrace.events import Draft, Event
from tailrace.messages import Message, Messages
from tailrace.mongo import Database
from tailrace.runs import Runs, new_run_id
from tailrace.sessions import Sessions
from tailrace.writer import Writer

Api = httpx.AsyncClient
Bearer = Callable[[str], dict[str, str]]
Append = Callable[..., Awaitable[list[Event]]]


async def _always() -> bool:
    return True


@pytest.fixture
async def append(database: Database) -> Append:
    """Appends drafts to alice's session `s1`, as a worker does."""
    await Sessions(database).claim("s1", "alice", title="Hello")
    log = EventLog(database, retention_seconds=3600)
    writer = Writer(log, "s1", run_id=new_run_id(), attempt=1, owns=_always)

    async def append(*drafts: Draft) -> list[Event]:
        return list(await writer.append(drafts))

    return append


def deltas(count: int, text: str = "a") -> list[Draft]:
    data = {"delta": text, "content_type": "text", "index": 0, "offset": 0}
    return [Draft(event_type="message_delta", message_id="m", data=data) for _ in range(count)]


async def get(api: Api, path: str, headers: dict[str, str], **params: str) -> dict[str, Any]:
    answer = await api.get(f"/api/apps{path}", params=params, headers=headers)
    assert answer.status_code == 200, answer.text
    page: dict[str, Any] = answer.json()
    return page


async def test_events_are_shown_as_the_bytes_of_their_frames(
    api: Api, bearer: Bearer, append: Append
) -> None:
    stored = await append(*deltas(2, "‹ \u2028 é ›"), Draft(event_type="finish", data={"status": "success"}))
    answer = await api.get("/api/apps/s1/agent/events", headers=bearer("alice"))
    frames = b",".join(event.to_json() for event in stored)
    assert answer.content == b'{"events":[' + frames + b'],"next":null}'
    assert answer.headers["content-type"] == "application/json"


async def test_events_match_the_schema_of_their_type(api: Api, bearer: Bearer, append: Append) -> None:
    await append(*deltas(1), Draft(event_type="finish", data={"status": "success"}))
    shown = (await get(api, "/s1/agent/events", bearer("alice")))["events"]
    decoded = [msgspec.convert(event, WireEvent) for event in shown]
    assert [type(event).__name__ for event in decoded] == ["MessageDeltaEvent", "FinishEvent"]


async def test_pages_of_events_join_without_a_hole_or_a_double(
    api: Api, bearer: Bearer, append: Append
) -> None:
    await append(*deltas(7))
    seen: list[int] = []
    params: dict[str, str] = {"limit": "3"}
    while True:
        page = await get(api, "/s1/agent/events", bearer("alice"), **params)
        seen += [event["seq"] for event in page["events"]]
        if page["next"] is None:
            break
        params["after"] = page["next"]
    assert seen == [1, 2, 3, 4, 5, 6, 7]


async def test_a_page_of_large_events_is_short_and_goes_on(
    api: Api, bearer: Bearer, append: Append, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_BYTES", 2_000)
    monkeypatch.setattr(history, "READ_EVENTS", 2)
    await append(*deltas(6, "a" * 600))
    page = await get(api, "/s1/agent/events", bearer("alice"))
    assert (len(page["events"]), page["next"]) == (4, "s1:4")
    page = await get(api, "/s1/agent/events", bearer("alice"), after="s1:4")
    assert ([event["seq"] for event in page["events"]], page["next"]) == ([5, 6], None)


@pytest.mark.parametrize("after", ["s1:2", "2"])
async def test_events_after_an_id_or_a_seq(api: Api, bearer: Bearer, append: Append, after: str) -> None:
    await append(*deltas(3))
    page = await get(api, "/s1/agent/events", bearer("alice"), after=after)
    assert [event["seq"] for event in page["events"]] == [3]


async def test_nothing_is_after_the_last_event(api: Api, bearer: Bearer, append: Append) -> None:
    await append(*deltas(3))
    page = await get(api, "/s1/agent/events", bearer("alice"), after="s1:3")
    assert page == {"events": [], "next": None}


@pytest.mark.parametrize(
    ("after", "reason"),
    [
        ("s1:4", "unknown"),
        ("4", "unknown"),
        ("s2:1", "other_session"),
        ("s1:-1", "malformed"),
        ("s1:0", "malformed"),
        ("s1:9223372036854775808", "malformed"),
        ("9223372036854775808", "malformed"),
        ("-1", "malformed"),
        ("1.0", "malformed"),
        ("s1:1\0", "malformed"),
        ("s1:1\r\n", "malformed"),
        ("s1:١", "malformed"),
        ("", "malformed"),
        ("a" * 10_000, "malformed"),
    ],
)
async def test_a_cursor_that_is_no_place_in_the_log_is_refused(
    api: Api, bearer: Bearer, append: Append, after: str, reason: str
) -> None:
    await append(*deltas(3))
    answer = await api.get("/api/apps/s1/agent/events", params={"after": after}, headers=bearer("alice"))
    assert (answer.status_code, answer.json()["reason"]) == (400, reason)


async def test_an_expired_cursor_is_gone_and_says_where_to_go_on(
    api: Api, bearer: Bearer, append: Append, database: Database
) -> None:
    await append(*deltas(5))
    await database["events"].delete_many({"seq": {"$lt": 4}})
    answer = await api.get("/api/apps/s1/agent/events", params={"after": "s1:2"}, headers=bearer("alice"))
    assert (answer.status_code, answer.json()["reason"]) == (410, "expired")
    assert "4" in answer.json()["detail"]
    page = await get(api, "/s1/agent/events", bearer("alice"), after="s1:3")
    assert [event["seq"] for event in page["events"]] == [4, 5]


async def test_messages_come_in_pages_oldest_first(api: Api, bearer: Bearer, database: Database) -> None:
    await Sessions(database).claim("s1", "alice", title="Hello")
    now = time.time()
    for number in range(3):
        message = Message(
            message_id=f"m{number}",
            session_id="s1",
            run_id="r",
            timestamp=now + number,
            role="user",
            content="a",
        )
        await Messages(database).add(message)
    first = await get(api, "/s1/agent/messages", bearer("alice"), limit="2")
    assert [message["message_id"] for message in first["messages"]] == ["m0", "m1"]
    rest = await get(api, "/s1/agent/messages", bearer("alice"), limit="2", after=str(first["next"]))
    assert [message["message_id"] for message in rest["messages"]] == ["m2"]
    assert rest["next"] is None


async def test_runs_come_in_pages_newest_first_and_one_by_one(
    api: Api, bearer: Bearer, database: Database
) -> None:
    await Sessions(database).claim("s1", "alice", title="Hello")
    ids = [new_run_id() for _ in range(3)]
    for number, run_id in enumerate(ids):
        await Runs(database).create(
            a_run(run_id=run_id, created_at=time.time() + number, state="success", active=False)
        )
    first = await get(api, "/s1/agent/runs", bearer("alice"), limit="2")
    assert [shown["run_id"] for shown in first["runs"]] == [ids[2], ids[1]]
    rest = await get(api, "/s1/agent/runs", bearer("alice"), limit="2", before=str(first["next"]))
    assert [shown["run_id"] for shown in rest["runs"]] == [ids[0]]
    one = await get(api, f"/s1/agent/runs/{ids[1]}", bearer("alice"))
    assert one == first["runs"][1]


@pytest.mark.parametrize("run_id", ["0" * 32, "$gt", "a.b", "%00", "x" * 10_000])
async def test_a_run_that_is_not_there_is_not_found(
    api: Api, bearer: Bearer, append: Append, run_id: str
) -> None:
    answer = await api.get(f"/api/apps/s1/agent/runs/{run_id}", headers=bearer("alice"))
    assert answer.status_code == 404


async def test_a_run_of_another_session_is_not_found(api: Api, bearer: Bearer, database: Database) -> None:
    await Sessions(database).claim("s1", "alice", title="Hello")
    await Sessions(database).claim("s2", "alice", title="Hello")
    run_id = new_run_id()
    await Runs(database).create(a_run(run_id=run_id, state="success", active=False))
    answer = await api.get(f"/api/apps/s2/agent/runs/{run_id}", headers=bearer("alice"))
    assert answer.status_code == 404


async def test_apps_are_the_callers_own_newest_first(api: Api, bearer: Bearer, database: Database) -> None:
    sessions = Sessions(database)
    for session_id in ("a1", "a2", "a3"):
        await sessions.claim(session_id, "alice", title=f"Title of {session_id}")
    await sessions.claim("b1", "bob", title="Bob's")
    first = await get(api, "", bearer("alice"), limit="2")
    assert [app["session_id"] for app in first["apps"]] == ["a3", "a2"]
    assert first["apps"][0].keys() == {"session_id", "title", "created_at", "updated_at", "last_seq"}
    rest = await get(api, "", bearer("alice"), limit="2", before=str(first["next"]))
    assert ([app["session_id"] for app in rest["apps"]], rest["next"]) == (["a1"], None)
    assert await get(api, "", bearer("carol")) == {"apps": [], "next": None}


BAD_NUMBERS = [
    "",
    "nan",
    "inf",
    "-1",
    "1e308",
    "1e400",
    "0x10",
    "1_000",
    "١٢",
    " 1",
    "1" + "0" * 18,
    "9" * 400,
]


@pytest.mark.usefixtures("append")
@pytest.mark.parametrize("text", BAD_NUMBERS)
@pytest.mark.parametrize(
    ("path", "name"),
    [("", "before"), ("", "limit"), ("/s1/agent/messages", "after"), ("/s1/agent/runs", "before")]
    + [(f"/s1/agent/{noun}", "limit") for noun in ("events", "messages", "runs")],
)
async def test_a_number_that_is_none_is_refused_by_name(
    api: Api, bearer: Bearer, path: str, name: str, text: str
) -> None:
    answer = await api.get(f"/api/apps{path}", params={name: text}, headers=bearer("alice"))
    assert (answer.status_code, answer.json()["errors"][0]["field"]) == (400, name)


@pytest.mark.parametrize("limit", ["0", "1001"])
async def test_a_page_size_out_of_range_is_refused(api: Api, bearer: Bearer, limit: str) -> None:
    answer = await api.get("/api/apps", params={"limit": limit}, headers=bearer("alice"))
    assert answer.status_code == 400


async def test_a_parameter_given_twice_is_refused(api: Api, bearer: Bearer) -> None:
    assert (await api.get("/api/apps?limit=1&limit=1", headers=bearer("alice"))).status_code == 400
