"""How long a reader may read: until its token expires, or its session is somebody else's."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence

import pytest
from pymongo.errors import AutoReconnect
from tests.e2e.stack import until
from tests.integration.live.test_live import ALICE, Reading, Session, all_of_alice, drained, seqs_of

from tailrace.eventlog import EventLog
from tailrace.live import Live, Until
from tailrace.mongo import Database
from tailrace.sessions import Sessions
from tailrace.tokens import Identity

FOR_EVER = Until(kind="never")
EXPIRED = b'event: stream.expired\ndata: {"reason":"token_expired"}\n\n'
REVOKED = b'event: stream.expired\ndata: {"reason":"revoked"}\n\n'


async def test_a_stream_ends_within_a_second_of_its_tokens_expiry(log: EventLog) -> None:
    await Session(log, "s1").write("a")
    expires_at = time.time() + 1.5
    async with asyncio.timeout(20), Live(log, owners=all_of_alice, keep_alive_seconds=14) as live:
        brief = Identity(user="alice", expires_at=expires_at)
        received = await drained(live, live.feed("s1", reader=brief, after=0, until=FOR_EVER))
        late = time.time() - expires_at
    assert received.endswith(EXPIRED)
    assert seqs_of(received) == [1]
    assert 0 <= late < 1.3


async def test_comments_keep_their_own_pace(log: EventLog) -> None:
    await Session(log, "s1").write("a")
    brief = Identity(user="alice", expires_at=time.time() + 4.5)
    async with asyncio.timeout(20), Live(log, owners=all_of_alice, keep_alive_seconds=4) as live:
        received = await drained(live, live.feed("s1", reader=brief, after=1, until=FOR_EVER))
    assert received.count(b":\n\n") in (1, 2)


@pytest.mark.parametrize("change", ["deleted", "given away"])
async def test_a_session_that_changes_hands_is_read_no_more(
    log: EventLog, database: Database, change: str
) -> None:
    sessions = Sessions(database)
    lost, kept = Session(log, "s1"), Session(log, "s2")
    for session in (lost, kept):
        await sessions.claim(session.session_id, "alice", title="")
        await session.write("a")
    async with asyncio.timeout(20), Live(log, owners=sessions.owners, keep_alive_seconds=14) as live:
        feed = live.feed("s1", reader=ALICE, after=0, until=FOR_EVER)
        other = asyncio.create_task(drained(live, live.feed("s2", reader=ALICE, after=0, until=kept.until)))
        reading = Reading(live, feed)
        await until(lambda: seqs_of(reading.received) == [1])
        if change == "deleted":
            await database["sessions"].delete_one({"_id": "s1"})
        else:
            await database["sessions"].update_one({"_id": "s1"}, {"$set": {"owner": "bob"}})
        lost_at = time.monotonic()
        received = await reading.rest()
        took = time.monotonic() - lost_at
        await lost.write("secret")
        await kept.finish()
        assert seqs_of(await other) == [1, 2]
    assert received.endswith(REVOKED)
    assert seqs_of(received) == [1]
    assert took < 5


async def test_events_written_after_the_revocation_was_seen_are_not_sent(log: EventLog) -> None:
    session = Session(log, "s1")
    await session.write("a")
    async with asyncio.timeout(20), Live(log, owners=all_of_alice, keep_alive_seconds=14) as live:
        feed = live.feed("s1", reader=ALICE, after=0, until=FOR_EVER)
        reading = Reading(live, feed)
        await until(lambda: seqs_of(reading.received) == [1])
        reading.full = True
        await session.write("secret")
        feed.close("revoked")
        reading.full = False
        feed.wake()
        received = await reading.rest()
    assert seqs_of(received) == [1]
    assert received.endswith(REVOKED)


async def test_nobody_is_cut_while_owners_cannot_be_looked_up(log: EventLog) -> None:
    looked = 0

    async def owners(session_ids: Sequence[str]) -> Mapping[str, str]:
        nonlocal looked
        looked += 1
        if looked <= 2:
            raise AutoReconnect("no primary")
        return {}

    await Session(log, "s1").write("a")
    async with asyncio.timeout(20), Live(log, owners=owners, keep_alive_seconds=14) as live:
        received = await drained(live, live.feed("s1", reader=ALICE, after=0, until=FOR_EVER))
    assert looked == 3
    assert received.endswith(REVOKED)


async def test_a_history_of_large_events_comes_in_small_chunks(log: EventLog) -> None:
    session = Session(log, "s1")
    await session.write(*["x" * 20_000] * 150, *"y" * 700)
    async with asyncio.timeout(20), Live(log, owners=all_of_alice, keep_alive_seconds=14) as live:
        feed = live.feed("s1", reader=ALICE, after=0, until=Until(kind="replay"))
        reading = Reading(live, feed)
        assert seqs_of(await reading.rest()) == list(range(1, 851))
    assert max(map(len, reading.chunks)) < 64 * 1024 + 21_000
