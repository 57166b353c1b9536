"""The digest that a `finish` is stamped with, on a real replica set, over both drivers."""

from __future__ import annotations

from typing import Any

import pytest

from tailrace.digest import Digest
from tailrace.eventlog import End, EventLog
from tailrace.events import Draft, Event
from tailrace.writer import Writer

pytestmark = pytest.mark.parametrize("mongo_driver", ["pymongo", "motor"])

QUEUED = Draft(event_type="run_queued", data={"agent": "default"})
FINISH = Draft(event_type="finish", data={"status": "success"})
SUPERSEDED = Draft(event_type="attempt_superseded", data={"from_seq": 1})


async def _mine() -> bool:
    return True


def writer(log: EventLog, run_id: str = "r1", *, attempt: int = 1, first_seq: int | None = None) -> Writer:
    return Writer(log, "s1", run_id=run_id, attempt=attempt, owns=_mine, first_seq=first_seq)


def deltas(*texts: str) -> list[Draft]:
    return [Draft(event_type="message_delta", data={"delta": text}) for text in texts]


async def chained(log: EventLog, run_id: str) -> str:
    """The digest of what a reader of the whole session is sent of one run."""
    digest = Digest()
    for event in await log.read("s1", after=0, limit=10_000):
        if event.run_id == run_id and event.event_type != "finish":
            digest.update(event.to_json())
    return digest.hexdigest()


async def alone(log: EventLog, run_id: str = "r1", **known: Any) -> Writer:
    """A writer that knows all that stands of its run: its first event. It cannot read what stands."""
    (queued,) = await writer(log, run_id).append([QUEUED])
    digest, end = Digest(), End(queued.seq, queued.timestamp)
    digest.update(queued.to_json())
    return Writer(log, "s1", run_id=run_id, attempt=1, owns=_mine, behind=end, digest=digest, **known)


async def stamped(writing: Writer, *before: Draft) -> Event:
    """The `finish` that the writer appends behind `before`."""
    return (await writing.append([*before, FINISH]))[-1]


async def test_a_finish_tells_the_digest_of_what_stands_before_it(log: EventLog) -> None:
    finish = await stamped(writer(log), QUEUED, *deltas("a", "b"))
    assert finish.data == {"status": "success", "last_seq": 4, "digest": await chained(log, "r1")}
    (found,) = await log.read("s1", after=3, limit=10)
    assert found.to_json() == finish.to_json()


async def test_the_digest_goes_over_all_attempts_and_no_other_run(log: EventLog) -> None:
    first, other = writer(log), writer(log, "r2")
    await first.append([QUEUED, *deltas("a")])
    await other.append([QUEUED, *deltas("not of r1")])
    await first.append(deltas("b"))
    finish = await stamped(writer(log, attempt=2), SUPERSEDED, *deltas("a", "b"))
    await other.append(deltas("nor this"))
    assert finish.data["digest"] == await chained(log, "r1")
    assert (await stamped(other)).data["digest"] == await chained(log, "r2") != finish.data["digest"]


async def test_the_digest_is_of_the_bytes_after_the_round_trip_through_bson(log: EventLog) -> None:
    awkward: dict[str, Any] = {"bytes": b"\xff", "set": {1}, "huge": 2**70, "big": "x" * 300_000, "f": 1e300}
    draft = Draft(event_type="custom", data={"value": awkward}, tags=("t",), metadata={"k": [1, 2.0]})
    finish = await stamped(writer(log), QUEUED, draft)
    assert finish.data["digest"] == await chained(log, "r1")
    finish = await stamped(await alone(log, "r2"), draft, *deltas("\ud800\0", "a"))
    assert finish.data["digest"] == await chained(log, "r2")


async def test_who_is_alone_with_its_run_reads_nothing_to_stamp_it(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(EventLog, "digest")
    own = await alone(log)
    await own.append(deltas("a"))
    finish = await stamped(own, *deltas("b", "c"))
    assert finish.data == {"status": "success", "digest": await chained(log, "r1"), "last_seq": 5}


async def test_the_place_of_a_finish_is_told_before_it_stands_there(log: EventLog) -> None:
    told: list[tuple[int, int]] = []

    async def finishing(seq: int) -> None:
        told.append((seq, (await log.bounds("s1")).last))
        if len(told) == 1:
            await writer(log, "r2").append([QUEUED])  # comes between

    own = await alone(log, finishing=finishing)
    finish = await stamped(own, *deltas("a"))
    assert (told, finish.seq) == ([(3, 1), (4, 3)], 4)


@pytest.mark.parametrize("run_id", ["r1", "r2"])
async def test_what_another_writer_put_in_the_finishes_place_is_seen(log: EventLog, run_id: str) -> None:
    """A queued run's event, or the last one of an attempt that does not know that it is over."""
    own, other = writer(log, attempt=2), writer(log, run_id)
    await own.append([QUEUED, *deltas("a")])
    await other.append(deltas("in between"))
    finish = await stamped(own)
    assert (finish.seq, finish.data["last_seq"]) == (4, 4)
    assert finish.data["digest"] == await chained(log, "r1")


async def test_who_was_alone_sees_what_came_between(log: EventLog) -> None:
    own = await alone(log)
    await own.append(deltas("a"))
    await writer(log, "r2").append([QUEUED])
    finish = await stamped(own, *deltas("b"))
    assert (finish.seq, finish.data["last_seq"]) == (5, 5)
    assert finish.data["digest"] == await chained(log, "r1")


@pytest.mark.parametrize("knows", [True, False])
async def test_a_finish_whose_answer_was_lost_stands_once_with_its_digest(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, *, knows: bool
) -> None:
    insert = log.insert

    async def twice(events: list[Event]) -> None:
        await insert(events)
        monkeypatch.setattr(log, "insert", insert)
        await insert(events)  # the retry of a write that had succeeded

    own = await alone(log)
    if not knows:
        own = writer(log)
    await own.append(deltas("a"))
    monkeypatch.setattr(log, "insert", twice)
    finish = await stamped(own, *deltas("b"))
    found = await log.read("s1", after=2, limit=10)
    assert [event.event_type for event in found] == ["message_delta", "finish"]
    assert finish.data["digest"] == await chained(log, "r1")


async def test_a_long_run_is_read_back_page_by_page_from_its_first_event(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.eventlog.DIGEST_PAGE", 3)
    await stamped(writer(log, "r0"), QUEUED, *deltas("before"))
    for count in (1, 2, 3, 4, 7):  # below, at and above the pages' edges
        run_id = f"r{count}"
        (queued,) = await writer(log, run_id).append([QUEUED])
        finish = await stamped(writer(log, run_id, first_seq=queued.seq), *deltas(*"abcdefg"[:count]))
        assert finish.data["digest"] == await chained(log, run_id)


async def test_the_digest_of_a_part_and_of_a_finished_run(log: EventLog) -> None:
    finish = await stamped(writer(log), QUEUED, *deltas("a", "b"))
    assert await log.digest("s1", "r1", after=0) == finish.data["digest"]
    part = Digest()
    part.update((await log.read("s1", after=1, limit=1))[0].to_json())
    assert await log.digest("s1", "r1", after=1, upto=2) == part.hexdigest()
    assert await log.digest("s1", "nobody", after=0) == ""
