"""(b) One session with many readers: an event goes to all of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ops.bench.delivery import Flow, delivered
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import FLOOR, PER_CONNECTION, POLL, PUBSUB, TAILRACE, System

__all__ = ["LADDER_MS", "fan_out"]

READERS = 1_000
LADDER_MS = 100.0  # the p99 up to which a system is said to deliver
# Readers and events a second, by frames a second: how far a system comes before its p99 passes LADDER_MS.
_LOW = ((50, 20), (100, 20), (150, 20), (200, 20), (200, 50), (500, 40), (500, 100))
_HIGH = tuple((READERS, rate) for rate in (120, 150, 200, 300, 400, 600, 800))


def fan_out(run: Run) -> Iterator[Reading]:
    """20 and 100 events a second to 1,000 readers, and how far they come, and the hand-written design."""
    for rate in (20, 100):
        others = (PER_CONNECTION, PUBSUB, POLL) if rate == 20 else (POLL,)
        for system in run.interleaved(TAILRACE, FLOOR, once=others):
            flow = _flow(run, f"{READERS:,} readers × {rate} events/s", READERS, rate)
            yield delivered(run, system, flow)
    for system in run.chosen(PUBSUB):
        yield from _climb(run, system, _LOW)
    for system in run.chosen(TAILRACE, FLOOR):
        yield from _climb(run, system, _HIGH)


def _climb(run: Run, system: System, ladder: Sequence[tuple[int, int]]) -> Iterator[Reading]:
    for count, rate in ladder:
        reading = delivered(
            run, system, _flow(run, f"ladder: {count:,} readers × {rate} events/s", count, rate)
        )
        yield reading
        if not reading.values["p99_ms"] <= LADDER_MS or reading.values["missing"]:
            return


def _flow(run: Run, case: str, readers: int, rate: float) -> Flow:
    return Flow(
        load="b",
        case=case,
        sessions=1,
        readers=run.many(readers, least=5),
        rate=rate,
        seconds=run.seconds(6),
    )
