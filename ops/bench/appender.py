"""Appends as fast as the log takes them; a program of its own.

    python -m ops.bench.appender SPEC   # JSON, a `Spec`

It says on stdout how many events it stored, and in how many seconds.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import Literal

import msgspec
import uvloop
from ops.bench.peer import end_with_stdin, tell
from ops.bench.source import event
from ops.bench.stamp import stamped

from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.mongo import connect
from tailrace.settings import Settings
from tailrace.writer import Writer
from tailrace_worker.emitter import Emitter

__all__ = ["Spec", "Way"]

# One insert for each event; the worker's emitter, which groups what waits; the same with tokens of one
# message, which it may also join.
Way = Literal["one insert at a time", "emitter", "emitter, tokens"]


class Spec(msgspec.Struct, frozen=True, kw_only=True):
    """Who appends, how, and how long."""

    mongodb_url: str
    database: str
    sessions: tuple[str, ...]  # a run in each, side by side
    way: Way
    seconds: float


async def _run(spec: Spec) -> None:
    settings = Settings(mongodb_url=spec.mongodb_url, mongodb_db=spec.database)
    async with connect(settings) as database:
        log = EventLog(database, retention_seconds=3600)
        await log.end(spec.sessions[0])
        began = time.monotonic()
        until = began + spec.seconds
        counts = await asyncio.gather(*(_append(log, session, spec.way, until) for session in spec.sessions))
        emitted, stored = map(sum, zip(*counts, strict=True))
        tell("end", emitted=emitted, stored=stored, seconds=time.monotonic() - began)


async def _append(log: EventLog, session: str, way: Way, until: float) -> tuple[int, int]:
    """How many events were emitted, and how many the log holds of them."""
    if way == "one insert at a time":
        return await _insert(log, session, until)
    emitted = 0
    async with Emitter(Writer(log, session, run_id="bench", attempt=1, owns=_always)) as emitter:
        while time.monotonic() < until:
            emitted += 1
            await emitter.emit(_token(emitted) if way == "emitter, tokens" else _step(emitted))
            if emitted % 100 == 0:
                await asyncio.sleep(0)  # as an agent would, whose tokens come from a socket
    return emitted, (await log.end(session)).seq


async def _insert(log: EventLog, session: str, until: float) -> tuple[int, int]:
    seq = 0
    while time.monotonic() < until:
        seq += 1
        await log.insert([event(session, seq, time.time(), stamped(seq) + "x" * 24)])
    return seq, seq


def _token(nth: int) -> Draft:
    data = {"delta": stamped(nth) + "x" * 24, "content_type": "text", "index": 0, "offset": nth * 8}
    return Draft(event_type="message_delta", message_id="01hzy3v8k2d7g6q4r9x5w1t0bm", data=data)


def _step(nth: int) -> Draft:
    return Draft(event_type="custom", data={"value": {"text": stamped(nth) + "x" * 24, "nth": nth}})


async def _always() -> bool:
    return True


if __name__ == "__main__":
    end_with_stdin()
    uvloop.run(_run(msgspec.json.decode(sys.argv[1], type=Spec)))
