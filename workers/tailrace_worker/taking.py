"""Taking a run: what its session holds, and then the atomic update that makes the run this process's.

In this order, so that the places to write at need no fence of their own: whoever has the run later looks
later, and writes at the same place, where one of the two collides, or behind it.
"""

from __future__ import annotations

import asyncio
import os
import socket
from uuid import uuid4

import msgspec

from tailrace.eventlog import End, EventLog
from tailrace.messages import Message, Messages
from tailrace.mongo import Database, patiently
from tailrace.runs import Run, Runs
from tailrace.settings import Settings

__all__ = ["Taken", "take"]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """A run that is this process's, and what its session held just before."""

    run: Run
    lost_since: float | None  # Unix seconds when the attempt before began, if there was one
    end: End  # of the log
    newest: Message | None  # of the messages, without this run's own
    earlier: list[Message]  # as many of them as the agent is given, oldest first


async def take(settings: Settings, database: Database, session_id: str, run_id: str) -> Taken | None:
    """Take a queued run; None when it is not there, another process took it, or it has ended."""
    event_log = EventLog(database, retention_seconds=settings.retention_seconds)
    messages, given = Messages(database), settings.history_messages
    end, earlier = await asyncio.gather(
        patiently(lambda: event_log.end(session_id)),
        patiently(lambda: messages.last(session_id, max(1, given), but=run_id)),
    )
    started = await _started(Runs(database), session_id, run_id)
    if started is None:
        return None
    run, lost_since = started
    return Taken(
        run=run,
        lost_since=lost_since,
        end=end,
        newest=earlier[-1] if earlier else None,
        earlier=earlier if given else [],
    )


async def _started(runs: Runs, session_id: str, run_id: str) -> tuple[Run, float | None] | None:
    worker = f"{socket.gethostname()}:{os.getpid()}:{uuid4().hex[:8]}"
    if (started := await patiently(lambda: runs.start(session_id, run_id, worker=worker))) is not None:
        return started
    # The answer to a first try may have been lost: then the run is ours already.
    found = await patiently(lambda: runs.get(session_id, run_id))
    return (found, None) if found is not None and found.active and found.worker == worker else None
