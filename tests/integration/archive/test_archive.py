"""The archive holds what MongoDB lets go, whoever dies while it is written, and reads as if it were live."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.integration.worker.scene import Scene

from tailrace.archive import ArchivedLog, ObjectStore
from tailrace.archive.archiver import Archiver
from tailrace.archive.segments import Segments
from tailrace.dev import child_environ
from tailrace.digest import Digest
from tailrace.erasure import Erasure
from tailrace.errors import ArchiveUnavailable
from tailrace.eventlog import EventLog
from tailrace.events import Draft, Event
from tailrace.jobs import Jobs
from tailrace.mongo import Database
from tailrace.sessions import Sessions
from tailrace.settings import Settings
from tailrace.writer import Writer


class Place:
    """A directory that is an archive, and what works with it."""

    def __init__(self, settings: Settings, database: Database, directory: Path) -> None:
        self.settings = msgspec.structs.replace(settings, archive_url=f"file://{directory}")
        self.database = database
        self.directory = directory
        self.store = ObjectStore(f"file://{directory}")
        self.live = EventLog(database, retention_seconds=3600)
        self.log = ArchivedLog(database, self.store, retention_seconds=3600)
        self.segments = Segments(database)

    def archiver(self) -> Archiver:
        return Archiver(self.settings, self.database, self.store)

    async def archive(self) -> None:
        await self.archiver().archive("s1", quiet_seconds=0)

    async def forget(self, *, upto: int) -> None:
        """As the TTL index does."""
        await self.database["events"].delete_many({"session_id": "s1", "seq": {"$lte": upto}})

    def files(self) -> set[str]:
        return {str(each.relative_to(self.directory)) for each in self.directory.rglob("*") if each.is_file()}


@pytest.fixture
async def place(settings: Settings, database: Database, tmp_path: Path) -> AsyncIterator[Place]:
    place = Place(settings, database, tmp_path / "archive")
    with closing(place.store):
        yield place


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Segments of nine events."""
    monkeypatch.setattr("tailrace.archive.archiver.MAX_EVENTS", 9)
    monkeypatch.setattr("tailrace.archive.archiver.PAGE", 4)


async def _filled(place: Place) -> list[Event]:
    """Two finished runs; their events."""
    scene = Scene(place.settings, place.database)
    await scene.perform("write 12 words", retention_seconds=0.0)
    return [*await scene.perform("what is 6 * 7?", retention_seconds=0.0)] and await scene.events()


def lines(events: list[Event]) -> list[bytes]:
    return [event.to_json() for event in events]


async def _same(place: Place, events: list[Event]) -> None:
    """The log reads as `events`, from wherever it is read."""
    bounds = await place.log.bounds("s1")
    assert (bounds.first, bounds.last) == (1, events[-1].seq)
    for after in range(len(events)):
        for limit in (1, 5, 1_000):
            found = await place.log.read("s1", after=after, limit=limit)
            assert lines(found) == lines(events[after : after + limit])
    for event in events:
        first = next(each.seq for each in events if each.timestamp >= event.timestamp)
        assert await place.log.seq_at("s1", event.timestamp) == first
    assert await place.log.seq_at("s1", 0.0) == 1
    assert await place.log.seq_at("s1", events[-1].timestamp + 1) == events[-1].seq + 1


@pytest.mark.usefixtures("short")
async def test_what_mongodb_lets_go_is_read_from_the_archive_without_a_seam(place: Place) -> None:
    events = await _filled(place)
    await place.archive()
    for upto in (0, 1, 9, 13, len(events) - 1, len(events)):
        await place.forget(upto=upto)
        await _same(place, events)


@pytest.mark.usefixtures("short")
async def test_what_comes_later_is_archived_behind_it(place: Place) -> None:
    scene = Scene(place.settings, place.database)
    await scene.perform("hello")
    await place.archive()
    await scene.perform("hello again")
    events = await scene.events()
    before = {segment.key for segment in await place.segments.of("s1")}
    await place.archive()
    segments = await place.segments.of("s1")
    assert before < {segment.key for segment in segments}
    assert [segment.first for segment in segments[1:]] == [segment.last + 1 for segment in segments[:-1]]
    await place.forget(upto=len(events))
    await _same(place, events)


@pytest.mark.usefixtures("short")
async def test_the_objects_alone_tell_everything(place: Place) -> None:
    events = await _filled(place)
    await place.archive()
    manifest = json.loads((place.directory / "s1/manifest.json").read_bytes())
    assert (manifest["first"], manifest["last"]) == (1, len(events))
    digests: dict[str, Digest] = {}
    told = []
    for segment in manifest["segments"]:
        packed = (place.directory / f"s1/{segment['first']}-{segment['last']}.ndjson.gz").read_bytes()
        content = gzip.decompress(packed)
        assert (len(packed), len(content)) == (segment["stored_bytes"], segment["bytes"])
        assert sha256(content).hexdigest() == segment["sha256"]
        told += content.splitlines()
        for line in content.splitlines():
            frame = json.loads(line)
            if frame["event_type"] != "finish":
                digests.setdefault(frame["run_id"], Digest()).update(line)
    assert told == lines(events)
    ends = {end["run_id"]: end["digest"] for segment in manifest["segments"] for end in segment["runs"]}
    assert ends == {run_id: digest.hexdigest() for run_id, digest in digests.items()}


@pytest.mark.usefixtures("short")
async def test_nothing_expires_before_it_is_archived(place: Place) -> None:
    await _filled(place)
    expiries = place.database["events"].distinct
    assert await expiries("expires_at") == [None]
    await place.database["sessions"].update_one({"_id": "s1"}, {"$set": {"retention_seconds": 60.0}})
    await place.archive()
    found = await place.database["events"].find().to_list(None)
    kept = {round(each["expires_at"].timestamp() - each["timestamp"]) for each in found}
    assert len(kept) == 1
    session = await place.database["sessions"].find_one({"_id": "s1"}) or {}
    assert session["archived_seq"] == session["last_seq"] == len(found)
    assert [each async for each in place.archiver().waiting(quiet_seconds=-1)] == []


class Killed(BaseException):
    pass


# Each thing that archiving does to the outside, in its order.
STEPS = [
    (ObjectStore, "write"),
    (Segments, "add"),
    (EventLog, "keep"),
    (Archiver, "_write_manifest"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), STEPS, ids=[name for _, name in STEPS])
@pytest.mark.usefixtures("short")
async def test_one_that_dies_at_a_step_is_repeated(
    place: Place, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, after: bool
) -> None:
    events = await _filled(place)
    step: Callable[..., Awaitable[Any]] = getattr(owner, name)
    calls = 0

    async def dying(*arguments: Any, **named: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == (2 if name in ("write", "add") else 1):
            if after:
                await step(*arguments, **named)
            raise Killed
        return await step(*arguments, **named)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, dying)
        with pytest.raises(Killed):
            await place.archive()
    segments = await place.segments.of("s1")
    assert {segment.key for segment in segments} <= place.files()
    await _same(place, events)
    await place.archive()
    await place.forget(upto=len(events))
    await _same(place, events)
    assert place.files() == {"s1/manifest.json", *(each.key for each in await place.segments.of("s1"))}


@pytest.mark.usefixtures("short")
async def test_several_at_once_leave_one_archive(place: Place) -> None:
    events = await _filled(place)
    await asyncio.gather(*(place.archive() for _ in range(4)))
    await place.forget(upto=len(events))
    await _same(place, events)
    assert place.files() == {"s1/manifest.json", *(each.key for each in await place.segments.of("s1"))}


async def test_killed_for_real_it_goes_on_where_it_was(place: Place) -> None:
    events = await _long(place, 6_000)
    environ = child_environ(place.settings)
    command = [sys.executable, "-m", "tailrace.cli", "archive", "--older-than", "0s", "--json"]
    for wanted in (1, 2):
        await asyncio.to_thread(_killed, command, environ, place, wanted)
    done = await asyncio.to_thread(subprocess.run, command, env=environ, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    assert [segment.last for segment in await place.segments.of("s1")] == [5_000, 6_000]
    await place.forget(upto=6_000)
    found = await place.log.read("s1", after=0, limit=20_000)
    assert lines(found) == lines(events)


def _killed(command: list[str], environ: dict[str, str], place: Place, objects: int) -> None:
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None and len(place.files()) < objects:
            time.sleep(0.002)
        process.kill()


async def _long(place: Place, count: int) -> list[Event]:
    async def owns() -> bool:
        return True

    sessions = Sessions(place.database)
    await sessions.claim("s1", "alice", title="")
    writer = Writer(place.live, "s1", run_id="0" * 32, attempt=1, owns=owns)
    events = []
    for start in range(0, count, 1_000):
        drafts = [
            Draft(event_type="message_delta", data={"delta": f"{n} "}) for n in range(start, start + 1_000)
        ]
        events += await writer.append(drafts)
    await sessions.remember_last_seq("s1", count)
    return events


@pytest.mark.usefixtures("short")
async def test_a_damaged_or_lost_object_is_a_hole_and_no_silence(place: Place) -> None:
    events = await _filled(place)
    await place.archive()
    await place.forget(upto=len(events))
    first, second, *_, last = await place.segments.of("s1")
    (place.directory / first.key).unlink()
    (place.directory / second.key).write_bytes(b"noise")
    found = await place.log.read("s1", after=0, limit=1_000)
    assert lines(found) == lines(events[second.last :])
    (place.directory / last.key).unlink()
    place.log._kept.clear()
    with pytest.raises(ArchiveUnavailable):
        await place.log.read("s1", after=last.first - 1, limit=10)


async def test_sessions_at_work_and_lately_at_work_are_left_alone(place: Place) -> None:
    await _filled(place)
    archiver = place.archiver()
    assert [each async for each in archiver.waiting(quiet_seconds=3600)] == []
    assert [each async for each in archiver.waiting(quiet_seconds=-1)] == ["s1"]
    assert await archiver.archive("s1", quiet_seconds=3600) is None
    await Scene(place.settings, place.database).queue("next")
    assert await archiver.archive("s1", quiet_seconds=0) is None
    assert await archiver.archive("nobody", quiet_seconds=0) is None
    assert place.files() == set()


@pytest.mark.usefixtures("short")
async def test_an_erasure_deletes_the_archive_and_what_a_late_archiver_wrote(place: Place) -> None:
    await _filled(place)
    await place.archive()
    await place.store.write("s10/1-2.ndjson.gz", b"another's")
    with closing(Jobs(place.settings)) as jobs:
        erasure = Erasure(place.settings, place.database, jobs, elsewhere=[place.store.delete_session])
        assert await erasure.erase("s1", "alice")
        tombstone = await place.database["sessions"].find_one({"_id": "s1"}) or {}
        await erasure.sweep(tombstone)
        assert place.files() == {"s10/1-2.ndjson.gz"}
        assert await place.segments.of("s1") == []
        await place.store.write("s1/manifest.json", b"late")
        await erasure.sweep(tombstone)
        assert place.files() == {"s10/1-2.ndjson.gz"}
    assert await place.archiver().archive("s1", quiet_seconds=0) is None
