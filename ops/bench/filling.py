"""Events that stand in the log before a measurement begins."""

from __future__ import annotations

import time
from collections.abc import Sequence

from ops.bench.deployment import Place
from ops.bench.source import event
from ops.bench.stamp import stamped

from tailrace.eventlog import EventLog
from tailrace.mongo import connect

__all__ = ["filled"]

_BATCH = 1_000


async def filled(place: Place, sessions: Sequence[str], events: int, *, text_bytes: int = 24) -> None:
    """Write `events` events to each of `sessions`, by the log's own insert."""
    async with connect(place.settings()) as database:
        log = EventLog(database, retention_seconds=86_400)
        for session in sessions:
            for first in range(1, events + 1, _BATCH):
                last = min(first + _BATCH, events + 1)
                now = time.time()
                await log.insert(
                    [event(session, seq, now, stamped(seq) + "x" * text_bytes) for seq in range(first, last)]
                )
