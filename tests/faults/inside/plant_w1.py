"""A plant: the writer counts as stored what the primary alone has, and a failover may take away."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from pymongo import WriteConcern

from tailrace.eventlog import EventLog
from tailrace.events import Event


async def _insert(self: Any, events: Sequence[Event]) -> None:
    alone = self._events.with_options(write_concern=WriteConcern(1))
    await alone.insert_many([event.to_document() for event in events], ordered=True)


cast(Any, EventLog).insert = _insert
