"""Holes: a reader never sees one that the log can fill, and is told of one that it cannot."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator

import pytest
from tests.e2e.stack import until
from tests.integration.live.test_live import ALICE, Reading, Session, all_of_alice, drained, seqs_of

from tailrace import metrics
from tailrace.eventlog import EventLog
from tailrace.events import Event
from tailrace.live import Feed, Live, Until
from tailrace.live.hub import Hub
from tailrace.live.sse import frame
from tailrace.mongo import Database

REPLAY = Until(kind="replay")


@pytest.fixture
async def live(log: EventLog) -> AsyncIterator[Live]:
    async with asyncio.timeout(60), Live(log, owners=all_of_alice, keep_alive_seconds=14) as live:
        yield live


@pytest.fixture(autouse=True)
def _from_zero() -> None:
    metrics.settle(metrics.API)


class Scene:
    """A live reader of a session, whose change stream sees nothing: the test publishes."""

    def __init__(self, live: Live, log: EventLog) -> None:
        self.live = live
        self.hub: Hub = live._hub
        self.session = Session(log, "s1")
        self.publish, self.hub.publish = self.hub.publish, lambda event: None  # type: ignore[method-assign]

    async def read_to_live(self) -> Feed:
        """A feed that has sent the first event and waits for the channel."""
        await self.session.write("first")
        self.feed = self.live.feed("s1", after=0, reader=ALICE, until=self.session.until)
        self.reading = asyncio.create_task(drained(self.live, self.feed))
        await until(lambda: self.feed.state == "live")
        return self.feed

    async def written(self, *texts: str) -> list[Event]:
        """New events, in the log and not in the channel."""
        last = self.session.writer.last_seq
        await self.session.write(*texts)
        return await self.session.log.read("s1", after=last, limit=100)

    async def finished(self) -> bytes:
        """What the reader was sent."""
        last = self.session.writer.last_seq
        await self.session.finish()
        for event in await self.session.log.read("s1", after=last, limit=10):
            self.publish(event)
        return await self.reading


@pytest.mark.parametrize("order", [(0, 2), (0, 2, 1), (1, 0, 2), (2, 1, 0), (0, 0, 2, 2)])
async def test_no_reader_sees_a_hole_or_a_wrong_order_of_the_change_stream(
    live: Live, log: EventLog, order: tuple[int, ...]
) -> None:
    scene = Scene(live, log)
    await scene.read_to_live()
    (zeroth,) = await scene.written("0")
    scene.publish(zeroth)
    events = await scene.written("a", "b", "c")
    for nth in order:
        scene.publish(events[nth])
    received = await scene.finished()
    assert seqs_of(received) == [1, 2, 3, 4, 5, 6]
    assert not re.search(rb"^event: stream\.", received, re.MULTILINE)
    assert metrics.HOLES.values["channel",] >= 1
    assert metrics.HOLES_REPAIRED.values[()] >= 1
    assert metrics.HOLES_SKIPPED.values[()] == 0


async def test_a_frame_out_of_order_ends_no_stream_and_is_fetched_from_history(
    live: Live, log: EventLog, caplog: pytest.LogCaptureFixture
) -> None:
    scene = Scene(live, log)
    await scene.read_to_live()
    a, b, c = await scene.written("a", "b", "c")
    channel = scene.hub._channels["s1"]
    channel._frames += [frame(a), frame(c), frame(b), frame(c)]  # as no `publish` would leave them
    channel.wake()
    received = await scene.finished()
    assert seqs_of(received) == [1, 2, 3, 4, 5]
    assert metrics.HOLES.values["frame",] == 1
    assert metrics.HOLES_REPAIRED.values[()] == 1
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told.__dict__["session_id"] == "s1"


async def test_a_hole_in_the_log_is_told_after_some_patience_and_the_stream_goes_on(
    live: Live, log: EventLog, database: Database
) -> None:
    session = Session(log, "s1")
    await session.write(*"abcdefg")
    await database["events"].delete_many({"session_id": "s1", "seq": {"$in": [3, 5]}})
    began = asyncio.get_running_loop().time()
    received = await drained(live, live.feed("s1", after=0, reader=ALICE, until=REPLAY))
    took = asyncio.get_running_loop().time() - began
    assert seqs_of(received) == [1, 2, 4, 6, 7]
    resets = re.findall(rb"^event: stream\.reset\ndata: (.*)$", received, re.MULTILINE)
    assert resets == [b'{"reason":"hole","from_seq":4}', b'{"reason":"hole","from_seq":6}']
    assert took > 4
    assert metrics.HOLES.values["history",] == metrics.HOLES_SKIPPED.values[()] == 2
    assert metrics.HOLES_REPAIRED.values[()] == 0


async def test_a_hole_that_is_filled_in_time_is_not_seen(
    live: Live, log: EventLog, database: Database
) -> None:
    session = Session(log, "s1")
    await session.write("a", "b", "c")
    missing = await database["events"].find_one_and_delete({"session_id": "s1", "seq": 2})
    reading = asyncio.create_task(drained(live, live.feed("s1", after=0, reader=ALICE, until=REPLAY)))
    await until(lambda: metrics.HOLES.values["history",] > 0)
    assert missing is not None
    await database["events"].insert_one(missing)
    received = await reading
    assert seqs_of(received) == [1, 2, 3]
    assert b"stream.reset" not in received
    assert metrics.HOLES_REPAIRED.values[()] == 1


async def test_an_event_that_only_the_channel_has_is_reached_behind_a_word(
    live: Live, log: EventLog, database: Database
) -> None:
    scene = Scene(live, log)
    await scene.read_to_live()
    first, second, third = await scene.written("a", "b", "c")
    scene.publish(first)
    await database["events"].delete_many({"session_id": "s1", "seq": {"$gt": 2}})
    scene.publish(third)
    await until(lambda: metrics.HOLES_SKIPPED.values[()] > 0)
    scene.feed.close("draining")
    received = await scene.reading
    assert seqs_of(received)[:2] == [1, 2]
    assert received.count(b'"reason":"hole","from_seq":4') == 1
    assert second.seq == 3


async def test_a_document_that_is_no_event_ends_nobody_elses_stream(
    live: Live, log: EventLog, database: Database
) -> None:
    session = Session(log, "s1")
    await session.write("first")
    feed = live.feed("s1", after=0, reader=ALICE, until=session.until)
    reading = Reading(live, feed)
    neighbour = live.feed("s2", after=0, reader=ALICE, until=Until(kind="never"))
    beside = Reading(live, neighbour)  # so that its session is watched
    await until(lambda: live._hub.covers("s2") and feed.state == "live")
    broken = sum(metrics.TAIL_BROKEN.values.values())
    await database["events"].insert_one({"_id": "s2:1", "session_id": "s2", "seq": "one"})
    await until(lambda: sum(metrics.TAIL_BROKEN.values.values()) > broken)
    await session.write("second")
    await session.finish()
    assert seqs_of(await reading.rest()) == [1, 2, 3]
    neighbour.close("gone")
    assert seqs_of(await beside.rest()) == []
