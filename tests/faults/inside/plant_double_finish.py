"""A plant: whoever recovers a run does not look whether the attempt before has left its `finish`."""

from __future__ import annotations

from typing import Any, cast

from tailrace.eventlog import EventLog


async def _none(*_: Any, **__: Any) -> None:
    return None


cast(Any, EventLog).finish_of = _none
