"""(a) 1,000 streams on 1,000 sessions: an event goes to one reader."""

from __future__ import annotations

from collections.abc import Iterator

from ops.bench.delivery import Flow, delivered
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import FLOOR, PER_CONNECTION, POLL, PUBSUB, TAILRACE

__all__ = ["spread"]


def spread(run: Run) -> Iterator[Reading]:
    """500 and 1,000 events a second in all."""
    for rate in (500, 1_000):
        flow = Flow(
            load="a",
            case=f"{rate:,} events/s",
            sessions=run.many(1_000, least=20),
            rate=run.many(rate, least=20),
            seconds=run.seconds(8),
        )
        for system in run.interleaved(TAILRACE, FLOOR, once=(PER_CONNECTION, PUBSUB, POLL)):
            yield delivered(run, system, flow)
