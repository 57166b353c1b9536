"""Lost runs: the next attempt, the fence between attempts, and the ends of what cannot go on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import pytest
from redis import Redis
from rq import Queue
from rq.serializers import JSONSerializer
from tests.integration.worker.scene import Scene, only, types

from tailrace.ending import close_document, message_writer_for, writer_for
from tailrace.errors import Fenced
from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.jobs import Jobs, job_id
from tailrace.leases import Leases
from tailrace.messages import Message, Messages, prompt_of
from tailrace.mongo import Database
from tailrace.recovery import Recovery
from tailrace.runs import Run, Runs
from tailrace.settings import Settings
from tailrace_worker.job import perform_run


@pytest.fixture
def scene(settings: Settings, database: Database) -> Scene:
    return Scene(settings, database)


@pytest.fixture
def jobs(settings: Settings) -> Iterator[Jobs]:
    jobs = Jobs(settings)
    yield jobs
    jobs.close()


@pytest.fixture
def recovery(scene: Scene, jobs: Jobs) -> Recovery:
    return Recovery(scene.settings, scene.database, jobs)


async def started(scene: Scene, prompt: str = "what is 6*7?") -> Run:
    """A run that a worker took, wrote three events of, and left."""
    run = await scene.queue(prompt)
    taken = await Runs(scene.database).start("s1", run.run_id, worker="w1")
    assert taken is not None
    await writer(scene, taken[0]).append(
        [
            Draft(event_type="run_queued"),
            Draft(event_type="agent_start"),
            Draft(event_type="message_delta", data={"delta": "half an ans", "offset": 0}),
        ]
    )
    await Runs(scene.database).began(msgspec.structs.replace(run, first_seq=1))
    return await scene.run(run.run_id)


def writer(scene: Scene, run: Run):  # type: ignore[no-untyped-def] # the inferred type is meant
    return writer_for(scene.database, EventLog(scene.database, retention_seconds=3600.0), run)


async def let_lease_run_out(scene: Scene, run: Run) -> None:
    past = datetime.now(UTC) - timedelta(hours=1)
    await scene.database["runs"].update_one({"_id": run.run_id}, {"$set": {"lease_expires_at": past}})


async def test_a_lost_run_is_told_again_from_its_beginning(scene: Scene, recovery: Recovery) -> None:
    run = await started(scene)
    await let_lease_run_out(scene, run)
    (found,) = await Leases(scene.database).run_out(limit=10)
    await recovery.tend(found)
    assert (await scene.run(run.run_id)).state == "queued"
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    events = await scene.events()
    superseded = only(events, "attempt_superseded")
    assert (superseded.seq, superseded.attempt) == (4, 2)
    assert (superseded.data["from_seq"], superseded.data["to_seq"]) == (2, 3)
    assert {event.attempt for event in events[3:]} == {2}
    assert only(events, "finish").data["status"] == "success"
    assert [message.role for message in await scene.messages()] == ["user", "assistant", "tool", "assistant"]


async def test_a_zombie_writes_nothing_once_its_successor_has_begun(scene: Scene, recovery: Recovery) -> None:
    run = await started(scene)
    zombie = writer(scene, run)
    await zombie.append([Draft(event_type="message_delta", data={"delta": "wer", "offset": 11})])
    await recovery.recover(run, why="", dead=True)
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    with pytest.raises(Fenced):
        await zombie.append([Draft(event_type="finish", data={"status": "success"})])
    assert only(await scene.events(), "finish").attempt == 2


async def test_a_message_on_its_way_when_the_next_attempt_begins_is_not_kept(
    scene: Scene, recovery: Recovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The attempt before froze after it saw that the run was still its own, and thaws when all is over."""
    add = Messages.add
    frozen, thawed = asyncio.Event(), asyncio.Event()

    async def add_late(messages: Messages, message: Message) -> Any:
        if message.role == "assistant" and not frozen.is_set():
            frozen.set()
            await thawed.wait()
        return await add(messages, message)

    monkeypatch.setattr(Messages, "add", add_late)
    run = await scene.queue("hello")
    zombie = asyncio.create_task(perform_run(scene.settings, scene.database, "s1", run.run_id))
    await frozen.wait()
    await recovery.recover(await scene.run(run.run_id), why="", dead=True)
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    kept = await scene.messages()
    assert [message.role for message in kept] == ["user", "assistant"]
    thawed.set()
    await zombie
    assert await scene.messages() == kept


async def test_an_attempt_that_froze_before_it_wrote_anything_writes_nothing(
    scene: Scene, recovery: Recovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It knows where to write from before it took the run; there stands what its successor wrote."""
    start = Runs.start
    frozen, thawed = asyncio.Event(), asyncio.Event()

    async def start_and_freeze(runs: Runs, session_id: str, run_id: str, *, worker: str) -> Any:
        started = await start(runs, session_id, run_id, worker=worker)
        if not frozen.is_set():
            frozen.set()
            await thawed.wait()
        return started

    monkeypatch.setattr(Runs, "start", start_and_freeze)
    run = await scene.queue("hello")
    zombie = asyncio.create_task(perform_run(scene.settings, scene.database, "s1", run.run_id))
    await frozen.wait()
    await recovery.recover(await scene.run(run.run_id), why="", dead=True)
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    told, kept = await scene.events(), await scene.messages()
    thawed.set()
    await zombie
    assert (await scene.events(), await scene.messages()) == (told, kept)
    assert {event.attempt for event in told} == {2}


async def test_a_finish_that_was_written_in_the_last_moment_counts(scene: Scene, recovery: Recovery) -> None:
    run = await started(scene)
    zombie = writer(scene, run)
    await zombie.append([Draft(event_type="agent_end", data={"status": "success"})])
    await recovery.recover(run, why="", dead=True)
    # The zombie's last batch was on its way when the next attempt was given out.
    await zombie.append([Draft(event_type="finish", data={"status": "success"})])
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    events = await scene.events()
    assert types(events)[-1] == "finish"
    assert only(events, "finish").attempt == 1
    assert (await scene.run(run.run_id)).state == "success"


async def test_a_zombie_that_races_its_successor_never_makes_a_second_finish(
    scene: Scene, recovery: Recovery
) -> None:
    for nth in range(10):
        run = await started(scene)
        scene_end = (await scene.events())[-1].seq
        zombie = writer(scene, run)
        await recovery.recover(run, why="", dead=True)

        async def last_words(zombie=zombie, run=run) -> None:  # type: ignore[no-untyped-def]
            try:
                for _ in range(20):
                    await zombie.append([Draft(event_type="message_delta", data={"delta": "x"})])
                (finish,) = await zombie.append([Draft(event_type="finish", data={"status": "success"})])
                await close_document(scene.database, run, finish, error=None)
            except Fenced:
                return

        await asyncio.gather(last_words(), perform_run(scene.settings, scene.database, "s1", run.run_id))
        events = await scene.events(run.run_id)
        assert types(events)[-1] == "finish", nth
        only(events, "finish")
        assert not (await scene.run(run.run_id)).active
        assert scene_end < events[-1].seq


async def test_a_run_that_is_lost_too_often_ends_as_lost(scene: Scene, jobs: Jobs) -> None:
    settings = msgspec.structs.replace(scene.settings, max_attempts=1)
    run = await started(scene)
    await Recovery(settings, scene.database, jobs).recover(run, why="it was killed.", dead=True)
    events = await scene.events()
    assert types(events)[-3:] == ["run_error", "agent_end", "finish"]
    assert only(events, "finish").data["status"] == "lost"
    assert "it was killed." in only(events, "run_error").data["message"]
    assert (await scene.run(run.run_id)).state == "lost"


async def test_an_attempt_that_thaws_when_its_run_has_ended_as_lost_leaves_no_message(
    scene: Scene, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first time in the midst of that end, when nobody knows of a prompt yet."""
    run = await started(scene)
    zombie = message_writer_for(scene.database, run, behind=None)
    holds, thawed = Messages.holds, []

    async def holds_and_thaw(messages: Messages, message_id: str) -> bool:
        held = await holds(messages, message_id)
        with pytest.raises(Fenced):
            await zombie.begin(prompt_of(run))
        thawed.append(held)
        return held

    monkeypatch.setattr(Messages, "holds", holds_and_thaw)
    settings = msgspec.structs.replace(scene.settings, max_attempts=1)
    await Recovery(settings, scene.database, jobs).recover(run, why="", dead=True)
    assert thawed == [False]
    assert (await scene.run(run.run_id)).state == "lost"
    with pytest.raises(Fenced):
        await zombie.add(prompt_of(run))
    assert [(message.role, message.content) for message in await scene.messages()] == [("user", run.prompt)]


async def test_a_cancel_that_is_meant_for_one_run_does_not_hit_the_next(
    scene: Scene, recovery: Recovery
) -> None:
    run = await scene.queue("hello", first_seq=1)
    assert await recovery.cancel("s1", "another") is None
    assert not (await scene.run(run.run_id)).cancel_requested
    assert await recovery.cancel("s1", run.run_id) is not None


async def test_seq_goes_on_when_what_a_waiting_run_was_told_has_expired(
    scene: Scene, recovery: Recovery
) -> None:
    run = await recovery.introduce(await scene.queue("hello", retention_seconds=60.0))
    await scene.database["events"].delete_many({})  # as the TTL index does
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    log = EventLog(scene.database, retention_seconds=0)
    assert [event.seq for event in await log.read("s1", after=0, limit=2)] == [2, 3]


async def test_only_one_of_many_recoveries_does_it(scene: Scene, recovery: Recovery) -> None:
    run = await started(scene)
    await let_lease_run_out(scene, run)
    await asyncio.gather(*(recovery.tend(run) for _ in range(20)))
    assert (await scene.run(run.run_id)).attempt == 2


async def test_a_renewed_lease_protects_a_run(scene: Scene, recovery: Recovery) -> None:
    run = await started(scene)
    await let_lease_run_out(scene, run)
    assert await Leases(scene.database).renew(run) is not None
    await recovery.tend(run)
    assert (await scene.run(run.run_id)).attempt == 1


async def test_a_lease_is_lost_to_the_next_attempt(scene: Scene, recovery: Recovery) -> None:
    run = await started(scene)
    await recovery.recover(run, why="", dead=True)
    assert await Leases(scene.database).renew(run) is None


async def test_a_queued_run_whose_job_vanished_is_enqueued_again(
    scene: Scene, recovery: Recovery, jobs: Jobs, settings: Settings
) -> None:
    run = await scene.queue("hello")
    await let_lease_run_out(scene, run)
    assert not await jobs.waits(run)
    await recovery.tend(run)
    assert await jobs.waits(run)
    with Redis.from_url(settings.redis_url) as redis:
        queue = Queue(settings.queue, connection=redis, serializer=JSONSerializer)
        assert queue.get_job_ids() == [job_id(run)]
    assert await Leases(scene.database).run_out(limit=10) == []


async def test_a_run_whose_queue_nobody_serves_ends_with_a_timeout(scene: Scene, jobs: Jobs) -> None:
    settings = msgspec.structs.replace(scene.settings, queue_timeout_seconds=0.001)
    recovery = Recovery(settings, scene.database, jobs)
    run = await recovery.introduce(await scene.queue("hello"))
    await jobs.enqueue(run)
    await let_lease_run_out(scene, run)
    await recovery.tend(run)
    events = await scene.events()
    assert types(events) == ["run_queued", "message_complete", "run_error", "agent_end", "finish"]
    assert only(events, "finish").data["status"] == "timeout"
    assert "no worker" in only(events, "run_error").data["message"]
    (asked,) = await scene.messages()
    assert (asked.role, asked.content) == ("user", "hello")
    assert (asked.message_id, asked.told()) == (events[1].message_id, events[1].data)
    # The job is still in the queue; a worker that comes now finds nothing to do.
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    assert len(await scene.events()) == len(events)


async def test_a_run_of_one_attempt_is_not_read_back_for_its_digest(
    scene: Scene, recovery: Recovery, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = await recovery.introduce(await scene.queue("hello"))
    with monkeypatch.context() as patched:
        patched.delattr(EventLog, "digest")
        await perform_run(scene.settings, scene.database, "s1", run.run_id)
    log = EventLog(scene.database, retention_seconds=0)
    stands = await log.digest("s1", run.run_id, after=0)
    assert only(await scene.events(), "finish").data["digest"] == stands


async def test_a_lost_run_that_somebody_cancelled_ends_as_cancelled(scene: Scene, recovery: Recovery) -> None:
    run = await started(scene)
    assert await Runs(scene.database).request_cancel("s1") is not None
    await recovery.recover(run, why="", dead=True)
    assert only(await scene.events(), "finish").data["status"] == "cancelled"


async def test_a_running_run_hears_that_it_shall_end(scene: Scene, jobs: Jobs) -> None:
    scene.settings = msgspec.structs.replace(scene.settings, offline_tokens_per_second=100.0)
    run = await scene.queue("write 5000 words")
    performing = asyncio.create_task(perform_run(scene.settings, scene.database, "s1", run.run_id))
    while "message_delta" not in types(await scene.events()):
        assert not performing.done()
    await Runs(scene.database).request_cancel("s1")
    await jobs.cancel(run)
    await performing
    assert only(await scene.events(), "finish").data["status"] == "cancelled"
    assert (await scene.messages())[-1].status == "cancelled"


async def test_without_redis_the_beat_sees_that_it_shall_end(scene: Scene) -> None:
    scene.settings = msgspec.structs.replace(
        scene.settings, offline_tokens_per_second=100.0, redis_url="redis://127.0.0.1:1/0"
    )
    run = await scene.queue("write 5000 words")
    performing = asyncio.create_task(perform_run(scene.settings, scene.database, "s1", run.run_id))
    while "message_delta" not in types(await scene.events()):
        assert not performing.done()
    await Runs(scene.database).request_cancel("s1")
    await performing
    assert only(await scene.events(), "finish").data["status"] == "cancelled"


async def test_a_cancel_asked_for_before_the_run_began_is_heard(scene: Scene) -> None:
    scene.settings = msgspec.structs.replace(scene.settings, offline_tokens_per_second=100.0)
    run = await scene.queue("write 5000 words")
    await Runs(scene.database).request_cancel("s1")
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    assert only(await scene.events(), "finish").data["status"] == "cancelled"


@pytest.mark.parametrize("told", [False, True])
async def test_a_run_whose_api_died_before_it_was_told_of_is_told_of_once(
    scene: Scene, recovery: Recovery, told: bool
) -> None:
    run = await scene.queue("hello")
    if told:
        await writer(scene, run).append([Draft(event_type="run_queued", data={"agent": "default"})])
    await let_lease_run_out(scene, run)
    await recovery.tend(run)
    await perform_run(scene.settings, scene.database, "s1", run.run_id)
    events = await scene.events()
    assert types(events)[:2] == ["run_queued", "agent_start"]
    assert only(events, "run_queued").attempt == 1
    assert (await scene.run(run.run_id)).first_seq == 1
