"""A plant: the tail's next change stream resumes after the last one's token, whatever its filter was.

The server answers 280 for ever once the session that owns the token has left the filter (SERVER-107889).
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from typing import Any, cast

from bson import Timestamp

from tailrace import eventlog
from tailrace.eventlog import Changes, EventLog
from tailrace.events import Event
from tailrace.mongo import start_session

_next = Changes.next
_kept: dict[str, Any] = {}


async def _next_and_keep(self: Any) -> Event | None:
    event = await _next(self)
    _kept["resume_after"] = self._stream.resume_token
    return event


@asynccontextmanager
async def _watch(self: Any, session_ids: Iterable[str], *, start_at: Timestamp) -> AsyncIterator[Changes]:
    chosen = {"operationType": "insert", "fullDocument.session_id": {"$in": sorted(session_ids)}}
    async with (
        start_session(self._database) as session,
        await self._events.watch(
            [{"$match": chosen}, eventlog._WATCH_FIELDS],
            **(_kept or {"start_at_operation_time": start_at}),
            max_await_time_ms=eventlog.MAX_AWAIT_MS,
            batch_size=eventlog.WATCH_BATCH,
            session=session,
        ) as stream,
    ):
        yield Changes(stream, session, start_at)


cast(Any, Changes).next = _next_and_keep
cast(Any, EventLog).watch = _watch
