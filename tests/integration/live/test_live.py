"""History and live, joined: readers that come at any moment see every event once, in order."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncIterator, Mapping, Sequence

import pytest
from tests.e2e.stack import until

from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.live import Feed, Live, Until
from tailrace.live.channel import MAX_BYTES
from tailrace.mongo import Database
from tailrace.tokens import Identity
from tailrace.writer import Writer

ALICE = Identity(user="alice", expires_at=time.time() + 3600)


async def _mine() -> bool:
    return True


async def all_of_alice(session_ids: Sequence[str]) -> Mapping[str, str]:
    return dict.fromkeys(session_ids, "alice")


class Session:
    """A run that is being written."""

    def __init__(self, log: EventLog, session_id: str) -> None:
        self.session_id = session_id
        self.log = log
        self.writer = Writer(log, session_id, run_id=f"run-{session_id}", attempt=1, owns=_mine)

    async def write(self, *texts: str) -> None:
        await self.writer.append([Draft(event_type="message_delta", data={"delta": text}) for text in texts])

    async def finish(self) -> None:
        await self.writer.append([Draft(event_type="finish", data={"status": "success"})])

    @property
    def until(self) -> Until:
        return Until(kind="finish", run_id=f"run-{self.session_id}")


@pytest.fixture
async def live(log: EventLog) -> AsyncIterator[Live]:
    async with asyncio.timeout(120), Live(log, owners=all_of_alice, keep_alive_seconds=1) as live:
        yield live


def seqs_of(chunks: bytes) -> list[int]:
    return [int(seq) for seq in re.findall(rb"^id: [^:]+:([0-9]+)$", chunks, re.MULTILINE)]


class Reading:
    """A sink that keeps what a feed sends, from now on."""

    def __init__(self, live: Live, feed: Feed) -> None:
        self.chunks: list[bytes] = []
        self.full = False
        self._ended = asyncio.Event()
        live.open(feed, self, then=self._ended.set)

    @property
    def received(self) -> bytes:
        return b"".join(self.chunks)

    def write(self, data: bytes) -> None:
        assert not self._ended.is_set()
        self.chunks.append(data)

    def end(self) -> None:
        pass

    async def rest(self) -> bytes:
        """All that was received, when the stream has ended."""
        await self._ended.wait()
        return self.received


async def drained(live: Live, feed: Feed) -> bytes:
    """Everything the feed sends until it ends."""
    return await Reading(live, feed).rest()


async def test_a_replay_ends_with_the_newest_event(live: Live, log: EventLog) -> None:
    session = Session(log, "s1")
    await session.write("a", "b", "c")
    feed = live.feed("s1", after=1, reader=ALICE, until=Until(kind="replay"))
    assert seqs_of(await drained(live, feed)) == [2, 3]


async def test_three_hundred_joins_at_random_moments_see_every_event_once(live: Live, log: EventLog) -> None:
    chance = random.Random(20261122)
    sessions = [Session(log, f"s{nth}") for nth in range(30)]

    async def run(session: Session) -> None:
        for nth in range(60):
            await session.write(*(f"{nth}.{part}" for part in range(chance.randint(1, 3))))
            await asyncio.sleep(chance.uniform(0, 0.03))
        await session.finish()

    async def join(session: Session) -> None:
        await asyncio.sleep(chance.uniform(0, 1.5))
        last = (await log.bounds(session.session_id)).last
        if chance.random() < 0.5:
            after = chance.randint(0, last)
        else:
            newest = await log.last(session.session_id)
            after = (await log.seq_at(session.session_id, newest.timestamp if newest else 0)) - 1
        feed = live.feed(session.session_id, after=after, reader=ALICE, until=session.until)
        seqs = seqs_of(await drained(live, feed))
        end = (await log.bounds(session.session_id)).last
        assert seqs == list(range(after + 1, end + 1))

    async with asyncio.TaskGroup() as group:
        for session in sessions:
            group.create_task(run(session))
        for nth in range(300):
            group.create_task(join(sessions[nth % len(sessions)]))


async def test_a_reader_slower_than_the_channel_is_served_from_history(live: Live, log: EventLog) -> None:
    session = Session(log, "s1")
    await session.write("first")
    feed = live.feed("s1", after=0, reader=ALICE, until=session.until)
    slow = Reading(live, feed)
    await until(lambda: seqs_of(slow.received) == [1])
    slow.full = True
    other = Reading(live, live.feed("s1", after=1, reader=ALICE, until=session.until))
    text = "x" * 20_000
    for _ in range(2 * MAX_BYTES // len(text)):
        await session.write(text)
    await session.finish()
    assert seqs_of(await other.rest())[-1] == session.writer.last_seq
    assert seqs_of(slow.received) == [1]
    slow.full = False
    feed.wake()
    received = await slow.rest()
    assert b"event: stream.lagged\n" in received
    assert seqs_of(received) == list(range(1, session.writer.last_seq + 1))


async def test_a_silent_stream_gets_comments(live: Live, log: EventLog) -> None:
    await Session(log, "s1").write("a")
    feed = live.feed("s1", after=1, reader=ALICE, until=Until(kind="never"))
    reading = Reading(live, feed)
    await until(lambda: bool(reading.chunks))
    assert reading.chunks[0] == b":\n\n"


async def test_draining_ends_every_stream_with_a_word(live: Live, log: EventLog) -> None:
    session = Session(log, "s1")
    await session.write("a")
    feed = live.feed("s1", after=0, reader=ALICE, until=Until(kind="never"))
    reading = Reading(live, feed)
    await until(lambda: seqs_of(reading.received) == [1])
    live.drain()
    assert b"event: stream.rotate\n" in reading.chunks[-1]
    assert await reading.rest()


@pytest.mark.parametrize("code", [286, 136, 280, 134])
async def test_history_lost_by_the_change_stream_is_invisible(
    live: Live, log: EventLog, database: Database, code: int
) -> None:
    session = Session(log, "s1")
    await session.write("a")
    reading = asyncio.create_task(drained(live, live.feed("s1", after=0, reader=ALICE, until=session.until)))
    await asyncio.sleep(0.2)  # the moment of the fault is arbitrary; the reader may or may not be live by now
    await database.client.admin.command(
        {
            "configureFailPoint": "failCommand",
            "mode": {"times": 1},
            "data": {"errorCode": code, "failCommands": ["getMore"], "closeConnection": False},
        }
    )
    for nth in range(50):
        await session.write(str(nth))
    await session.finish()
    assert seqs_of(await reading) == list(range(1, session.writer.last_seq + 1))


async def test_events_that_expired_under_a_reader_are_announced(
    live: Live, log: EventLog, database: Database
) -> None:
    session = Session(log, "s1")
    await session.write("a", "b", "c", "d")
    await database["events"].delete_many({"seq": {"$lte": 2}})
    received = await drained(live, live.feed("s1", after=0, reader=ALICE, until=Until(kind="replay")))
    assert b'event: stream.reset\ndata: {"reason":"expired","from_seq":3}\n\n' in received
    assert seqs_of(received) == [3, 4]


async def test_change_streams_that_follow_each_other_share_their_connections(
    live: Live, log: EventLog, database: Database
) -> None:
    async def connections() -> int:
        status = await database.client.admin.command("serverStatus")
        return int(status["connections"]["totalCreated"])

    sessions, readings, before = [Session(log, f"s{nth}") for nth in range(30)], [], 0
    for nth, session in enumerate(sessions):
        await session.write("a")
        feed = live.feed(session.session_id, after=0, reader=ALICE, until=session.until)
        readings.append(Reading(live, feed))
        await until(lambda feed=feed: feed.state == "live")  # type: ignore[misc]
        await sessions[0].write("b")  # what the stream that was replaced waits for
        if nth == 5:  # by then there are as many as it takes
            before = await connections()
    assert await connections() - before <= 6
    for session in sessions:
        await session.finish()
    received = [seqs_of(await reading.rest()) for reading in readings]
    assert received == [list(range(1, session.writer.last_seq + 1)) for session in sessions]
