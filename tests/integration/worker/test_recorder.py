"""The recorder, when the run is cancelled while something is written down."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from typing import cast

import pytest
from tests.integration.worker.scene import Scene, only, types

from tailrace.errors import Fenced
from tailrace.events import Draft, Event
from tailrace.message_writer import MessageWriter
from tailrace.messages import Message, Messages
from tailrace.mongo import Database
from tailrace.settings import Settings
from tailrace.writer import Writer
from tailrace_worker import emitter as emitters
from tailrace_worker.assistant import Output
from tailrace_worker.emitter import Emitter
from tailrace_worker.envelope import Envelope
from tailrace_worker.job import perform_run
from tailrace_worker.recorder import Recorder

MESSAGE = Message(message_id="m1", session_id="s1", run_id="r1", timestamp=0.0, role="assistant")
TOLD = ["message_delta", "message_complete", "tool_start"]


class Slow:
    """Messages and a log that wait until `go` is set."""

    def __init__(self) -> None:
        self.reached, self.go, self.ends = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.failure: Exception | None = None
        self.told: list[str] = []

    async def add(self, message: Message) -> Message:
        self.reached.set()
        await self.go.wait()
        if self.failure is not None:
            raise self.failure
        return message

    async def append(self, drafts: Sequence[Draft]) -> list[Event]:
        await self.go.wait()
        self.told += [draft.event_type for draft in drafts]
        return []


def recorder_of(slow: Slow, emitter: Emitter) -> Recorder:
    return Recorder(emitter, cast(MessageWriter, slow), cast(Envelope, None), ends=slow.ends.set)


def outputs(before: asyncio.Event, counted: list[str]) -> Iterator[Output]:
    """A message with the last of its text, and then what follows when it is counted as told."""
    before.set()
    yield Draft(event_type="message_delta", data={"delta": "a"})
    yield MESSAGE
    yield Draft(event_type="message_complete")
    counted.append("its tokens")
    yield Draft(event_type="tool_start")


@pytest.mark.parametrize("times", [1, 2])
async def test_a_message_that_is_kept_is_told_though_the_run_is_cancelled(times: int) -> None:
    slow, counted = Slow(), list[str]()
    async with Emitter(cast(Writer, slow)) as emitter:
        recording = asyncio.create_task(recorder_of(slow, emitter).record(outputs(asyncio.Event(), counted)))
        await slow.reached.wait()
        for _ in range(times):
            recording.cancel()
            await slow.ends.wait()
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await recording
    assert (slow.told, counted) == (TOLD, ["its tokens"])


async def test_a_delta_that_waits_for_room_is_told_though_the_run_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    slow, before, counted = Slow(), asyncio.Event(), list[str]()
    async with Emitter(cast(Writer, slow)) as emitter:
        await emitter.emit(Draft(event_type="agent_start"))
        monkeypatch.setattr(emitters, "MAX_QUEUED", 1)
        recording = asyncio.create_task(recorder_of(slow, emitter).record(outputs(before, counted)))
        await before.wait()
        recording.cancel()
        slow.go.set()
        with pytest.raises(asyncio.CancelledError):
            await recording
    assert (slow.told, counted) == (["agent_start", *TOLD], ["its tokens"])


async def test_a_cancelled_run_that_was_taken_away_hears_that() -> None:
    slow = Slow()
    async with Emitter(cast(Writer, slow)) as emitter:
        recording = asyncio.create_task(recorder_of(slow, emitter).record(outputs(asyncio.Event(), [])))
        await slow.reached.wait()
        recording.cancel()
        slow.failure = Fenced()
        slow.go.set()
        with pytest.raises(Fenced):
            await recording
    assert slow.told == TOLD[:1]


async def test_a_run_that_is_cancelled_while_its_answer_is_stored_tells_it_whole(
    settings: Settings, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    scene, stored, go, add = Scene(settings, database), asyncio.Event(), asyncio.Event(), Messages.add

    async def added(self: Messages, message: Message) -> bool:
        done = await add(self, message)
        if message.role == "assistant":
            stored.set()
            await go.wait()
        return done

    monkeypatch.setattr(Messages, "add", added)
    run = await scene.queue("hello")
    performing = asyncio.create_task(perform_run(scene.settings, database, "s1", run.run_id))
    await stored.wait()
    performing.cancel()
    go.set()
    await performing
    events = await scene.events()
    told = [event for event in events if event.event_type == "message_complete"][-1]
    kept = (await scene.messages())[-1]
    assert (told.message_id, told.data["content"]) == (kept.message_id, kept.content)
    assert types(events)[-3:] == ["message_complete", "agent_end", "finish"]
    assert only(events, "agent_end").data["usage"]["output_tokens"] > 0
    assert events[-1].data["status"] == "cancelled"
