"""The writer's process: events at an even pace, into the log or, for the hand-written design, to Redis.

    python -m ops.bench.source SPEC   # JSON, a `Spec`

It says on stdout when it begins with the warm-up, with what is measured, and what it wrote.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack

import msgspec
import uvloop
from ops.bench.peer import end_with_stdin, tell
from ops.bench.stamp import stamped
from redis.asyncio import BlockingConnectionPool, Redis

from tailrace.eventlog import EventLog
from tailrace.events import Event, event_id
from tailrace.mongo import connect
from tailrace.settings import Settings

__all__ = ["Spec", "event"]

_LATE_SECONDS = 10.0  # for what is still being written when the time is over
_PUBLISHERS = 32  # connections to Redis
_MAX_WAITING = 20_000  # events; then the system under test has the writer at a standstill

Sink = Callable[[list[Event]], Awaitable[object]]


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """What to write: one event each 1/`rate` s, to the sessions in turn."""

    mongodb_url: str
    redis_url: str
    database: str
    sessions: tuple[str, ...]
    rate: float  # events a second, of all sessions together
    warm_seconds: float
    seconds: float
    to_redis: bool = False
    text_bytes: int = 24  # of each delta, behind its stamp


class _Lane:
    """One session's place in the log. What comes while an insert is under way goes with the next one."""

    def __init__(self, session_id: str, sink: Sink) -> None:
        self.session_id = session_id
        self.seq = 0
        self._sink = sink
        self._waiting: list[Event] = []
        self._busy = False

    def write(self, event: Event) -> asyncio.Task[None] | None:
        self._waiting.append(event)
        if self._busy:
            return None
        self._busy = True
        return asyncio.create_task(self._write_all())

    async def _write_all(self) -> None:
        while self._waiting:
            group, self._waiting = self._waiting, []
            await self._sink(group)
        self._busy = False


class _Source:
    def __init__(self, spec: Spec, sink: Sink) -> None:
        self._spec = spec
        self._sink = sink
        self._lanes = [_Lane(session_id, self._store) for session_id in spec.sessions]
        self._tasks: set[asyncio.Task[None]] = set()
        self._text = "x" * spec.text_bytes
        self._handed = 0
        self._failure: BaseException | None = None
        self.stored = 0
        self.measured = 0  # handed over after the warm-up
        self.latest = 0.0  # seconds that an event was handed over after its time, at most

    async def run(self) -> bool:
        """Write everything; whether all of it was stored in time."""
        spec = self._spec
        began = time.monotonic()
        await self._write(began, spec.warm_seconds, measured=False)
        tell("measuring", stored=self.stored)
        self.latest = 0.0
        await self._write(began + spec.warm_seconds, spec.seconds, measured=True)
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=_LATE_SECONDS)
        late = [task for task in self._tasks if not task.done()]
        for task in late:
            task.cancel()
        return not late

    async def _write(self, began: float, seconds: float, *, measured: bool) -> None:
        due = int(seconds * self._spec.rate)
        for nth in range(due):
            at = began + nth / self._spec.rate
            if (wait := at - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            else:
                self.latest = max(self.latest, -wait)
                if nth % 100 == 99:
                    await asyncio.sleep(0)
            if self._failure is not None:
                raise self._failure
            if self._handed - self.stored > _MAX_WAITING:
                return
            self._hand_over(measured)

    def _hand_over(self, measured: bool) -> None:
        lane = self._lanes[self._handed % len(self._lanes)]
        lane.seq += 1
        self._handed += 1
        self.measured += measured
        now = time.time()
        text = stamped(lane.seq, measured=measured) + self._text
        task = lane.write(event(lane.session_id, lane.seq, now, text))
        if task is not None:
            self._tasks.add(task)
            task.add_done_callback(self._settled)

    def _settled(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self._failure = error

    async def _store(self, events: list[Event]) -> None:
        await self._sink(events)
        self.stored += len(events)


def event(session_id: str, seq: int, now: float, text: str) -> Event:
    """A token of an answer, as a worker writes it."""
    return Event(
        event_id=event_id(session_id, seq),
        session_id=session_id,
        run_id="01hzy3v8k2d7g6q4r9x5w1t0bn",
        attempt=1,
        seq=seq,
        timestamp=round(now, 6),
        event_type="message_delta",
        message_id="01hzy3v8k2d7g6q4r9x5w1t0bm",
        data={"delta": text, "content_type": "text", "index": 0, "offset": seq * 8},
    )


async def _run(spec: Spec) -> None:
    settings = Settings(mongodb_url=spec.mongodb_url, mongodb_db=spec.database, redis_url=spec.redis_url)
    async with AsyncExitStack() as stack:
        if spec.to_redis:
            pool = BlockingConnectionPool.from_url(spec.redis_url, max_connections=_PUBLISHERS)
            sink = _publisher(await stack.enter_async_context(Redis.from_pool(pool)))
        else:
            database = await stack.enter_async_context(connect(settings))
            sink = EventLog(database, retention_seconds=3600).insert
        source = _Source(spec, sink)
        whole = await source.run()
        told = {"stored": source.stored, "measured": source.measured, "latest": source.latest}
        tell("done", whole=whole, **told)


def _publisher(redis: Redis) -> Sink:
    async def publish(events: list[Event]) -> None:
        for event in events:
            await redis.publish(event.session_id, event.to_json())

    return publish


if __name__ == "__main__":
    end_with_stdin()
    uvloop.run(_run(msgspec.json.decode(sys.argv[1], type=Spec)))
