"""The log on a real replica set, over both drivers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
import pytest
from pymongo.errors import BulkWriteError, NetworkTimeout

from tailrace.errors import Fenced
from tailrace.eventlog import Bounds, EventLog, token_time
from tailrace.events import Draft, Event
from tailrace.mongo import Database, connect, ensure_indexes, settled
from tailrace.sessions import Sessions
from tailrace.settings import Settings
from tailrace.writer import Writer

pytestmark = pytest.mark.parametrize("mongo_driver", ["pymongo", "motor"])


async def _mine() -> bool:
    return True


async def _lost() -> bool:
    return False


def writer(log: EventLog, run_id: str = "r1", *, owns: Callable[[], Awaitable[bool]] = _mine) -> Writer:
    return Writer(log, "s1", run_id=run_id, attempt=1, owns=owns)


def deltas(*texts: str) -> list[Draft]:
    return [Draft(event_type="message_delta", data={"delta": text}) for text in texts]


def shown(events: list[Event]) -> list[tuple[int, str]]:
    return [(event.seq, event.data["delta"]) for event in events]


async def test_events_are_read_back_in_the_order_they_were_appended(log: EventLog) -> None:
    stored = await writer(log).append(deltas("a", "b", "c"))
    assert shown(stored) == [(1, "a"), (2, "b"), (3, "c")]
    found = await log.read("s1", after=0, limit=10)
    assert [event.to_json() for event in found] == [event.to_json() for event in stored]
    assert shown(await log.read("s1", after=1, limit=1)) == [(2, "b")]


@pytest.mark.parametrize("more", [0, 1])
async def test_a_page_of_any_length_is_one_answer(log: EventLog, database: Database, more: int) -> None:
    stored = await writer(log).append(deltas(*map(str, range(300 + more))))
    owners = {f"s{nth}": "alice" for nth in range(300)}
    await database["sessions"].insert_many([{"_id": name, "owner": owner} for name, owner in owners.items()])
    await database.command("profile", 2)
    found = await log.read("s1", after=0, limit=300)
    owned = await Sessions(database).owners(list(owners))
    await database.command("profile", 0)
    assert (shown(found), owned) == (shown(stored[:300]), owners)
    asked = database["system.profile"].find({"op": {"$in": ["query", "getmore"]}})
    assert [each["op"] for each in await asked.to_list(None)] == ["query", "query"]


async def test_an_integer_of_64_bits_is_read_back_and_encoded(log: EventLog) -> None:
    numbers = {"value": [2**31, -(2**31) - 1, {"milliseconds": 1_763_836_800_000}, 2**63 - 1, -(2**63)]}
    start = await log.now()
    stored = await writer(log).append([Draft(event_type="custom", data=numbers)])
    async with log.watch(["s1"], start_at=start) as changes:
        while (live := await changes.next()) is None:
            pass
    for found in (*await log.read("s1", after=0, limit=1), live):
        assert found.to_json() == stored[0].to_json()


async def test_a_second_writer_goes_on_where_the_first_one_ended(log: EventLog) -> None:
    await writer(log).append(deltas("a"))
    assert shown(await writer(log, "r2").append(deltas("b"))) == [(2, "b")]


async def test_two_writers_that_both_own_their_run_share_the_log_without_a_hole(log: EventLog) -> None:
    one, two = writer(log), writer(log, "r2")
    await one.append(deltas("first"))

    async def write(each: Writer, name: str) -> None:
        for nth in range(30):
            await each.append(deltas(f"{name}{nth}", f"{name}{nth}+"))

    await asyncio.gather(write(one, "a"), write(two, "b"))
    found = await log.read("s1", after=0, limit=1000)
    assert [event.seq for event in found] == list(range(1, 122))
    for name in "ab":
        own = [event.data["delta"] for event in found if event.data["delta"][0] == name]
        assert own == [f"{name}{nth}{plus}" for nth in range(30) for plus in ("", "+")]


async def test_a_writer_whose_run_was_taken_over_writes_nothing_after_the_successor(log: EventLog) -> None:
    owned = True

    async def owns() -> bool:
        return owned

    zombie = writer(log, owns=owns)
    await zombie.append(deltas("before"))
    owned = False
    await writer(log).append([Draft(event_type="attempt_superseded", data={"from_seq": 1})])
    with pytest.raises(Fenced):
        await zombie.append(deltas("after", "and more"))
    found = await log.read("s1", after=0, limit=10)
    assert [event.event_type for event in found] == ["message_delta", "attempt_superseded"]
    assert found[1].data == {"from_seq": 1, "to_seq": 1}


async def test_an_attempt_that_froze_before_its_first_write_is_fenced_too(log: EventLog) -> None:
    frozen = writer(log, owns=_lost)
    await writer(log).append([Draft(event_type="attempt_superseded", data={"from_seq": 1})])
    with pytest.raises(Fenced):
        await frozen.append(deltas("after"))
    assert len(await log.read("s1", after=0, limit=10)) == 1


async def test_a_run_begins_once_whoever_tells_of_it(log: EventLog) -> None:
    queued = Draft(event_type="run_queued", data={"agent": "default"})
    begun = await asyncio.gather(*(writer(log).begin(queued) for _ in range(10)))
    assert {event.seq for event in begun} == {1}
    assert len(await log.read("s1", after=0, limit=10)) == 1


async def test_a_run_that_is_begun_behind_a_known_end_begins_once(log: EventLog) -> None:
    queued = Draft(event_type="run_queued", data={"agent": "default"})
    known = await log.end("s1")
    begun = await asyncio.gather(*(writer(log).begin(queued, behind=known) for _ in range(10)))
    assert {event.seq for event in begun} == {1}
    assert len(await log.read("s1", after=0, limit=10)) == 1


async def test_a_run_that_is_begun_behind_an_end_of_the_past_leaves_no_hole(log: EventLog) -> None:
    known = await log.end("s1")
    await writer(log, "neighbour").append(deltas("a", "b"))
    begun = await writer(log).begin(Draft(event_type="run_queued"), behind=known)
    assert begun.seq == 3
    assert [event.seq for event in await log.read("s1", after=0, limit=10)] == [1, 2, 3]


async def test_a_write_whose_answer_was_lost_is_recognised_as_ones_own(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    insert = log.insert
    tries = 0

    async def twice(events: list[Event]) -> None:
        nonlocal tries
        tries += 1
        await insert(events)
        if tries == 1:
            await insert(events)  # the retry of a write that had succeeded

    monkeypatch.setattr(log, "insert", twice)
    assert shown(await writer(log).append(deltas("a", "b"))) == [(1, "a"), (2, "b")]
    assert len(await log.read("s1", after=0, limit=10)) == 2


@pytest.mark.parametrize("write", [Writer.append, Writer.take_over])
async def test_a_write_that_goes_on_after_its_answer_was_given_up_stores_nothing_twice(
    log: EventLog, monkeypatch: pytest.MonkeyPatch, write: Callable[[Writer, list[Draft]], Awaitable[object]]
) -> None:
    insert = log.insert
    tries: list[list[Event]] = []

    async def slow(events: list[Event]) -> None:
        tries.append(events)
        first = tries[0]
        if len(tries) == 1:
            await insert(first[:1])
            raise NetworkTimeout("timed out")
        if len(tries) == 3:
            await insert(first[1:])  # the first try, in the meantime
        await insert(events)

    monkeypatch.setattr(log, "insert", slow)
    await write(writer(log), deltas("a", "b", "c"))
    assert shown(await log.read("s1", after=0, limit=10)) == [(1, "a"), (2, "b"), (3, "c")]
    assert len(tries) == 3


async def test_an_append_costs_mongodb_no_record_that_would_let_the_driver_repeat_it(
    log: EventLog, database: Database
) -> None:
    await writer(log).append(deltas("a", "b"))
    name = f"{database.name}.events"
    entries = await database.client["local"]["oplog.rs"].find({"op": "i", "ns": name}).to_list(None)
    assert [entry["o"]["_id"] for entry in entries] == ["s1:1", "s1:2"]
    assert not any({"txnNumber", "stmtId"} & entry.keys() for entry in entries)


async def test_more_than_one_message_holds_is_appended_in_order(
    log: EventLog, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tailrace.insertion.MAX_COMMAND_BYTES", 500)
    mine = writer(log)
    texts = [f"{nth} {'x' * 100}" for nth in range(1, 10)]
    assert shown(await mine.append(deltas(*texts))) == list(enumerate(texts, 1))
    # A neighbour's, in the middle of the next batch and not in its first message.
    await database["events"].insert_one({"_id": "s1:16", "session_id": "s1", "seq": 16})
    further = [
        msgspec.structs.replace(event, seq=event.seq + 9, event_id=f"s1:{event.seq + 9}")
        for event in await log.read("s1", after=0, limit=9)
    ]
    with pytest.raises(BulkWriteError) as refused:
        await log.insert(further)
    assert [(found["index"], found["code"]) for found in refused.value.details["writeErrors"]] == [
        (6, 11_000)
    ]
    assert await database["events"].count_documents({}) == 16


async def test_seq_goes_on_when_all_events_have_expired(log: EventLog, database: Database) -> None:
    sessions = Sessions(database)
    await sessions.claim("s1", "alice", title="")
    await writer(log).append(deltas("a", "b", "c"))
    await sessions.remember_last_seq("s1", 3)
    await database["events"].delete_many({})
    assert await log.bounds("s1") == Bounds(4, 3)
    assert shown(await writer(log).append(deltas("d"))) == [(4, "d")]


async def test_bounds_of_a_session_without_events(log: EventLog) -> None:
    assert await log.bounds("nobody") == Bounds(1, 0)


async def test_a_timestamp_maps_to_the_smallest_seq_that_is_not_older(log: EventLog) -> None:
    first = await writer(log).append(deltas("a", "b"))  # one append: both carry the same timestamp
    second = await writer(log).append(deltas("c"))
    assert first[0].timestamp == first[1].timestamp < second[0].timestamp
    assert await log.seq_at("s1", 0) == 1
    assert await log.seq_at("s1", first[0].timestamp) == 1
    assert await log.seq_at("s1", first[0].timestamp + 1e-6) == 3
    assert await log.seq_at("s1", second[0].timestamp + 1) == 4


async def test_timestamps_never_decrease_though_a_writers_clock_does(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    ahead = await writer(log).append(deltas("a"))
    monkeypatch.setattr("tailrace.writer.time.time", lambda: ahead[0].timestamp - 300)
    behind = await writer(log).append(deltas("b"))
    assert behind[0].timestamp == ahead[0].timestamp


async def test_a_finish_says_where_it_stands(log: EventLog) -> None:
    stored = await writer(log).append([*deltas("a"), Draft(event_type="finish", data={"status": "success"})])
    told = stored[-1].data
    assert (told["status"], told["last_seq"]) == ("success", 2)


async def test_values_that_mongodb_refuses_are_carried(log: EventLog) -> None:
    awkward: dict[str, Any] = {
        "bytes": b"\xff\x00",
        "set": {1},
        "nul\0key": 1,
        "huge": 2**70,
        "surrogate": "\ud800",
        "nan": float("nan"),
        "$where": {"a.b": 1},
        "big": "x" * 300_000,
    }
    stored = await writer(log).append([Draft(event_type="custom", data={"value": awkward})])
    found = await log.read("s1", after=0, limit=1)
    assert found[0].to_json() == stored[0].to_json()
    assert found[0].data["value"]["huge"] == str(2**70)
    assert "more characters]" in found[0].data["value"]["big"]


async def test_the_change_stream_begins_where_it_is_told_to(log: EventLog) -> None:
    at = await log.now()
    await writer(log).append(deltas("a", "b"))
    seen: list[int] = []
    async with asyncio.timeout(30), log.watch(["s1"], start_at=at) as changes:
        while len(seen) < 3:
            event = await changes.next()
            if event is not None:
                seen.append(event.seq)
                if event.seq == 2:
                    await writer(log).append(deltas("c"))
        assert changes.position > at
    assert seen == [1, 2, 3]


async def test_a_token_tells_how_far_the_change_stream_has_come(log: EventLog, database: Database) -> None:
    at = await log.now()
    await writer(log).append(deltas("a"))
    stream: Any = await settled(database["events"].watch(start_at_operation_time=at))
    async with stream, asyncio.timeout(30):
        change = await stream.next()
        assert token_time(change["_id"]) == change["clusterTime"]
        await stream.try_next()
        idle = token_time(stream.resume_token)
        assert idle is not None
        assert idle >= change["clusterTime"]
    for odd in (None, {}, {"_data": b"82"}, {"_data": "82"}, {"_data": "not a token, but long enough"}):
        assert token_time(odd) is None


async def test_events_that_were_rolled_back_beside_a_collision_are_written_again(
    log: EventLog, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One answer says both that a place was taken and that no majority has what stood before it."""
    mine = writer(log)
    await mine.append(deltas("first"))
    # A neighbour's, in the middle of the batch that follows: the two were at it at the same time.
    await database["events"].insert_one({"_id": "s1:3", "session_id": "s1", "seq": 3})
    insert = log.insert
    answers: list[set[str]] = []

    async def rolled_back(events: list[Event]) -> None:
        try:
            await insert(events)
        except BulkWriteError as error:
            answers.append({name for name, value in (error.details or {}).items() if value})
            await database["events"].delete_many({"seq": {"$gt": 1}})
            raise

    monkeypatch.setattr(log, "insert", rolled_back)
    fail = {"failCommands": ["insert"], "writeConcernError": {"code": 64, "errmsg": "rolled back"}}
    await database.client.admin.command(
        {"configureFailPoint": "failCommand", "mode": {"times": 1}, "data": fail}
    )
    stored = await mine.append(deltas("a", "b"))
    assert {"writeErrors", "writeConcernErrors"} <= answers[0]
    assert shown(await log.read("s1", after=0, limit=10)) == [(1, "first"), (2, "a"), (3, "b")]
    assert shown(stored) == [(2, "a"), (3, "b")]


@pytest.mark.parametrize("retries", [1, 3])
async def test_an_append_outlasts_a_primary_that_answers_with_errors(
    log: EventLog,
    database: Database,
    settings: Settings,
    retries: int,
    mongo_driver: Literal["pymongo", "motor"],
) -> None:
    admin = database.client.admin
    fail = {"errorCode": 91, "failCommands": ["insert"], "appName": "tailrace-weather"}
    url = f"{settings.mongodb_url}{'&' if '?' in settings.mongodb_url else '/?'}appname=tailrace-weather"
    async with connect(msgspec.structs.replace(settings, mongodb_url=url)) as own:
        await ensure_indexes(own)
        await admin.command(
            {"configureFailPoint": "failCommand", "mode": {"times": 2 * retries}, "data": fail}
        )
        stored = await writer(EventLog(own, retention_seconds=60)).append(deltas("a", "b"))
    assert shown(await log.read("s1", after=0, limit=10)) == shown(stored) == [(1, "a"), (2, "b")]
