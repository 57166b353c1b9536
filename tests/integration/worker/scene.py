"""One run on stage: queued as the API queues it, performed in this process, and read back."""

from __future__ import annotations

from itertools import groupby
from typing import Any

import msgspec
from tests.records import a_run

from tailrace.eventlog import EventLog
from tailrace.events import Event
from tailrace.messages import Message, Messages
from tailrace.mongo import Database
from tailrace.runs import Run, Runs
from tailrace.sessions import Sessions
from tailrace.settings import Settings
from tailrace_worker.job import perform_run

QUICK = 100_000.0  # tokens a second


class Scene:
    """A session with a quick offline model; settings are changed by keyword."""

    def __init__(self, settings: Settings, database: Database, **changes: Any) -> None:
        self.settings = msgspec.structs.replace(settings, **{"offline_tokens_per_second": QUICK, **changes})
        self.database = database
        self.session_id = "s1"

    async def queue(self, prompt: str, *, agent: str = "default", **fields: Any) -> Run:
        """A queued run of the session."""
        await Sessions(self.database).claim(self.session_id, "alice", title=prompt)
        run = a_run(self.session_id, agent=agent, prompt=prompt, **fields)
        await Runs(self.database).create(run)
        return run

    async def perform(self, prompt: str, **fields: Any) -> list[Event]:
        """Run `prompt` to its end; that run's events."""
        run = await self.queue(prompt, **fields)
        await perform_run(self.settings, self.database, self.session_id, run.run_id)
        return await self.events(run.run_id)

    async def events(self, run_id: str | None = None) -> list[Event]:
        """The session's events, or one run's."""
        log = EventLog(self.database, retention_seconds=3600.0)
        found = await log.read(self.session_id, after=0, limit=100_000)
        assert [event.seq for event in found] == list(range(1, len(found) + 1))
        return [event for event in found if run_id in (None, event.run_id)]

    async def messages(self) -> list[Message]:
        """The conversation."""
        return await Messages(self.database).last(self.session_id, 10_000)

    async def run(self, run_id: str) -> Run:
        """The run's document now."""
        run = await Runs(self.database).get(self.session_id, run_id)
        assert run is not None
        return run


def types(events: list[Event]) -> list[str]:
    """The types in order, repeats of one type as one: how many deltas there are is the model's own affair."""
    return [kind for kind, _ in groupby(event.event_type for event in events)]


def said(events: list[Event]) -> str:
    """The text of all deltas."""
    return "".join(event.data["delta"] for event in events if event.event_type == "message_delta")


def only(events: list[Event], event_type: str) -> Event:
    """The one event of that type."""
    (found,) = [event for event in events if event.event_type == event_type]
    return found
