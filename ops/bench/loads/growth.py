"""(h) What an event costs as streams and stored events grow in number."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from ops.bench.delivery import Flow, delivered, measured
from ops.bench.filling import filled
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import FLOOR, TAILRACE

__all__ = ["growth"]

RATE = 500  # events a second in all
_STREAMS = (100, 1_000, 5_000)
_STORED = (10_000, 1_000_000)
_STORED_IN_FULL = 10_000_000
_STREAMS_OVER_STORED = 200
_EVENTS_A_SESSION = 10_000


def growth(run: Run) -> Iterator[Reading]:
    """500 events/s to 100, 1,000 and 5,000 streams; over 10⁴, 10⁶ and, in full, 10⁷ stored events."""
    for count in _STREAMS:
        for system in run.interleaved(TAILRACE, FLOOR):
            yield delivered(run, system, _flow(run, f"{count:,} streams", run.many(count, least=5)))
    for count in (*_STORED, _STORED_IN_FULL) if run.full else _STORED:
        yield from _over_stored(run, f"{count:,} stored events", run.many(count, least=1_000))


def _over_stored(run: Run, case: str, count: int) -> Iterator[Reading]:
    streams = run.many(_STREAMS_OVER_STORED, least=5)
    each = min(_EVENTS_A_SESSION, count)
    with run.deployment.place(streams) as place:
        run.say(f"(h) writing {count:,} events")
        asyncio.run(filled(place, [f"old{nth:05d}" for nth in range(count // each)], each))
        flow = _flow(run, case, streams)
        for system in run.interleaved(TAILRACE, FLOOR):
            run.say(f"(h) {flow.case}: {system.label}")
            with system.server(place) as server:
                yield measured(run, server, place, flow)
            run.deployment.forget(place, place.sessions)


def _flow(run: Run, case: str, streams: int) -> Flow:
    rate = run.many(RATE, least=20)
    return Flow(load="h", case=case, sessions=streams, rate=rate, seconds=run.seconds(6))
