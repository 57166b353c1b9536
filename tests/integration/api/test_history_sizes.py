"""Pages of a session's history are bounded in bytes, and read in turns."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack

import pytest
from litestar import Litestar
from tests.integration.api.test_history import Api, Bearer, get
from tests.records import a_run

from tailrace.api import history
from tailrace.live.live import READS_OF_A_USER
from tailrace.messages import Message, Messages
from tailrace.mongo import Database
from tailrace.runs import Runs, new_run_id
from tailrace.sessions import Sessions


async def pages(api: Api, headers: dict[str, str], noun: str, cursor: str, **params: str) -> list[list[str]]:
    """The ids on each page, until there is no next one."""
    found: list[list[str]] = []
    while True:
        page = await get(api, f"/s1/agent/{noun}", headers, **params)
        found.append([item[f"{noun[:-1]}_id"] for item in page[noun]])
        if page["next"] is None:
            return found
        params[cursor] = repr(page["next"])


async def test_a_page_of_large_runs_is_short_and_goes_on(
    api: Api, bearer: Bearer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_BYTES", 2_000)
    await Sessions(database).claim("s1", "alice", title="Hello")
    ids = [new_run_id() for _ in range(12)]
    for number, run_id in enumerate(ids):
        run = a_run(run_id=run_id, created_at=1e9 - number, state="success", active=False, prompt="a" * 1_000)
        await Runs(database).create(run)
    found = await pages(api, bearer("alice"), "runs", "before")
    assert found == [ids[:2], ids[2:4], ids[4:6], ids[6:8], ids[8:10], ids[10:]]
    assert await pages(api, bearer("alice"), "runs", "before", limit="1") == [*([each] for each in ids), []]


async def test_runs_of_the_same_time_stay_together_where_a_page_is_cut_short(
    api: Api, bearer: Bearer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    await Sessions(database).claim("s1", "alice", title="Hello")
    times = [9.0, 8.0, 8.0, 7.0, 7.0, 7.0, 6.0, *[5.0] * 13, 4.0, 3.0]
    stored = [a_run(created_at=time, state="success", active=False, prompt="a" * 1_000) for time in times]
    for run in stored:
        await Runs(database).create(run)
    (whole,) = await pages(api, bearer("alice"), "runs", "before")
    assert set(whole) == {run.run_id for run in stored}
    assert len(whole) == len(stored)
    monkeypatch.setattr(history, "PAGE_BYTES", 2_000)
    cut = await pages(api, bearer("alice"), "runs", "before")
    assert [len(page) for page in cut] == [3, 3, 14, 2]
    assert [run_id for page in cut for run_id in page] == whole


async def test_a_page_of_large_messages_is_short_and_goes_on(
    api: Api, bearer: Bearer, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PAGE_BYTES", 2_500)
    monkeypatch.setattr(history, "READ_MESSAGES", 4)
    await Sessions(database).claim("s1", "alice", title="Hello")
    for number in range(7):
        message = Message(
            message_id=f"m{number}",
            session_id="s1",
            run_id="r",
            timestamp=1e9 + number,
            role="user",
            content="a" * 1_000,
        )
        await Messages(database).add(message)
    found = await pages(api, bearer("alice"), "messages", "after")
    assert found == [["m0", "m1", "m2"], ["m3", "m4", "m5"], ["m6"]]


@pytest.mark.parametrize("noun", ["events", "messages", "runs"])
async def test_a_page_waits_for_a_turn_to_read_history(
    app: Litestar, api: Api, bearer: Bearer, database: Database, noun: str
) -> None:
    await Sessions(database).claim("s1", "alice", title="Hello")
    turn = app.state.services.live.history.of("alice")
    async with AsyncExitStack() as held:
        for _ in range(READS_OF_A_USER):
            await held.enter_async_context(turn)
        asked = asyncio.create_task(get(api, f"/s1/agent/{noun}", bearer("alice")))
        for _ in range(10):  # requests that need no turn; it came before them
            assert (await api.get("/api/apps/s1/agent/runs/none", headers=bearer("alice"))).status_code == 404
        assert not asked.done()
    assert (await asked)["next"] is None
