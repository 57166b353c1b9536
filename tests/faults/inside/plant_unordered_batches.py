"""A plant: a batch is inserted unordered, so what stands behind a collision lands all the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from tailrace.eventlog import EventLog
from tailrace.events import Event


async def _insert(self: Any, events: Sequence[Event]) -> None:
    await self._events.insert_many([event.to_document() for event in events], ordered=False)


cast(Any, EventLog).insert = _insert
