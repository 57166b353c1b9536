"""Group commit, bounds and merging, in front of a log that the test opens and closes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from tailrace.errors import Fenced
from tailrace.events import Draft, Event
from tailrace.writer import Writer
from tailrace_worker.emitter import MAX_QUEUED, MERGE_FROM, Emitter, merged


class SlowLog:
    """A writer whose appends wait until `go` is set."""

    def __init__(self) -> None:
        self.groups: list[list[Draft]] = []
        self.started = asyncio.Event()
        self.go = asyncio.Event()
        self.failure: Exception | None = None

    async def append(self, drafts: Sequence[Draft]) -> list[Event]:
        self.groups.append(list(drafts))
        self.started.set()
        await self.go.wait()
        if self.failure:
            raise self.failure
        return []


def emitter_of(log: SlowLog) -> Emitter:
    return Emitter(cast(Writer, log))


def delta(text: str, message: str = "m1", offset: int = 0) -> Draft:
    data = {"delta": text, "content_type": "text", "index": 0, "offset": offset}
    return Draft(event_type="message_delta", message_id=message, data=data)


async def test_what_gathers_during_an_append_goes_out_as_one_group() -> None:
    log = SlowLog()
    async with emitter_of(log) as emitter:
        await emitter.emit(delta("a"))
        await log.started.wait()
        for text in "bcd":
            await emitter.emit(delta(text))
        log.go.set()
        await emitter.flush()
    assert [[draft.data["delta"] for draft in group] for group in log.groups] == [["a"], ["b", "c", "d"]]


async def test_a_full_queue_makes_the_agent_wait() -> None:
    log = SlowLog()
    async with emitter_of(log) as emitter:
        await emitter.emit(delta("a"))
        await log.started.wait()
        for _ in range(MAX_QUEUED):
            await emitter.emit(delta("x"))
        waiting = asyncio.create_task(emitter.emit(delta("y")))
        await asyncio.sleep(0)
        assert not waiting.done()
        log.go.set()
        await waiting


async def test_a_fence_reaches_the_agent_at_its_next_event() -> None:
    log = SlowLog()
    log.failure = Fenced()
    log.go.set()
    emitter = emitter_of(log)

    async def run() -> None:
        async with emitter:
            await emitter.emit(delta("a"))
            await emitter.flush()

    with pytest.raises(Fenced):
        await run()
    with pytest.raises(Fenced):
        await emitter.emit(delta("b"))


async def test_leaving_stores_what_is_queued() -> None:
    log = SlowLog()
    log.go.set()
    async with emitter_of(log) as emitter:
        await emitter.emit(delta("a"))
    assert len(log.groups) == 1


async def test_far_behind_neighbouring_deltas_become_one() -> None:
    log = SlowLog()
    async with emitter_of(log) as emitter:
        await emitter.emit(delta("a"))
        await log.started.wait()
        for nth in range(MERGE_FROM):
            await emitter.emit(delta("x", offset=nth))
        log.go.set()
    assert [draft.data["delta"] for draft in log.groups[1]] == ["x" * MERGE_FROM]
    assert log.groups[1][0].data["offset"] == 0


def test_only_neighbours_of_one_message_are_merged() -> None:
    group = [delta("a"), delta("b"), delta("c", "m2"), Draft(event_type="tool_start"), delta("d", "m2")]
    assert [draft.data.get("delta") for draft in merged(group)] == ["ab", "c", None, "d"]


def test_merging_stays_far_below_what_an_event_can_carry() -> None:
    assert len(merged([delta("x" * 10_000)] * 4)) == 4
