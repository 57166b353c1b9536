"""A store that hangs keeps a few who need it, and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import closing

import pytest
from tests.records import a_run

from tailrace.archive import ArchivedLog, ObjectStore, archived_log
from tailrace.archive.segment import pack
from tailrace.archive.segments import Segments
from tailrace.ending import writer_for
from tailrace.errors import ArchiveUnavailable
from tailrace.eventlog import EventLog
from tailrace.events import Draft, Event
from tailrace.live.live import HISTORY_READS
from tailrace.mongo import Database
from tailrace.runs import Runs

DEADLINE = 30  # seconds
HOUR = 3600.0


class Hanging(ObjectStore):
    """A store that answers when it is told to."""

    def __init__(self) -> None:
        super().__init__("file:///nowhere")
        self.objects: dict[str, bytes] = {}
        self.asked = 0
        self.answers = asyncio.Event()

    async def read(self, key: str) -> bytes | None:
        self.asked += 1
        await self.answers.wait()
        return self.objects.get(key)


@pytest.fixture
async def store(database: Database) -> AsyncIterator[Hanging]:
    """With sessions `s0` to `s9`, of which MongoDB has nothing any more."""
    store, log = Hanging(), EventLog(database, retention_seconds=HOUR)
    for number in range(10):
        run = a_run(f"s{number}")
        await Runs(database).create(run)
        data = {"delta": "a", "content_type": "text", "index": 0, "offset": 0}
        await writer_for(database, log, run).append([Draft(event_type="message_delta", data=data)])
        segment, packed = pack(await log.read(run.session_id, after=0, limit=1))
        await Segments(database).add(segment)
        store.objects[segment.key] = packed
    await database["events"].delete_many({})
    with closing(store):
        yield store


async def test_a_store_that_hangs_keeps_two_readers_and_one_who_looks(
    database: Database, store: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ArchivedLog(database, store, retention_seconds=HOUR)

    def read(number: int) -> asyncio.Task[list[Event]]:
        return asyncio.create_task(log.read(f"s{number}", after=0, limit=1))

    async with asyncio.timeout(DEADLINE):
        kept = [read(0), read(1)]
        while store.asked < archived_log.LOADS:  # noqa: ASYNC110 - it has no event
            await asyncio.sleep(0)
        monkeypatch.setattr(archived_log, "WAIT_SECONDS", 0.05)
        monkeypatch.setattr(archived_log, "AWAY_SECONDS", HOUR)
        with pytest.raises(ArchiveUnavailable):
            await read(2)
        monkeypatch.setattr(archived_log, "WAIT_SECONDS", HOUR)
        refused = await asyncio.gather(*(read(2) for _ in range(HISTORY_READS)), return_exceptions=True)
        assert {type(each) for each in refused} == {ArchiveUnavailable}
        assert (store.asked, [task.done() for task in kept]) == (2, [False, False])
        store.answers.set()
        assert [len(await task) for task in (*kept, *(read(number) for number in range(10)))] == [1] * 12


async def test_one_reader_a_while_waits_for_a_store_that_hangs(
    database: Database, store: Hanging, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = ArchivedLog(database, store, retention_seconds=HOUR)
    monkeypatch.setattr(archived_log, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(archived_log, "AWAY_SECONDS", 0.0)
    readers = [asyncio.create_task(log.read(f"s{number}", after=0, limit=1)) for number in range(3)]
    async with asyncio.timeout(DEADLINE):
        await asyncio.wait(readers, return_when=asyncio.FIRST_COMPLETED)
        monkeypatch.setattr(archived_log, "WAIT_SECONDS", HOUR)
        monkeypatch.setattr(archived_log, "AWAY_SECONDS", HOUR)
        readers = [asyncio.create_task(log.read("s4", after=0, limit=1)) for _ in range(HISTORY_READS)]
        while sum(task.done() for task in readers) < HISTORY_READS - 1:  # noqa: ASYNC110 - nor have they
            await asyncio.sleep(0)
        store.answers.set()
        found = await asyncio.gather(*readers, return_exceptions=True)
    assert sum(isinstance(each, ArchiveUnavailable) for each in found) == HISTORY_READS - 1
