"""(d) Streams that come and go: what those that stay notice of it."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec
from ops.bench.client import readers
from ops.bench.delivery import Flow, measured
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import FLOOR, PER_CONNECTION, TAILRACE, System

__all__ = ["churn"]

JOINS = 200  # a second
_STAYING = 200  # streams
_HOLD_MS = 1_000  # that a stream stays; so as many leave as come


def churn(run: Run) -> Iterator[Reading]:
    """200 streams a second join and leave, on sessions of their own, while 200 others get 200 events/s."""
    flow = Flow(
        load="d",
        case=f"{JOINS} joins/s",
        sessions=run.many(_STAYING, least=10),
        rate=run.many(200, least=20),
        seconds=run.seconds(10),
    )
    for system in run.interleaved(TAILRACE, FLOOR, once=(PER_CONNECTION,)):
        yield _churned(run, system, flow)


def _churned(run: Run, system: System, flow: Flow) -> Reading:
    run.say(f"(d) {flow.case}: {system.label}")
    rate = run.many(JOINS, least=10)
    coming = 2 * rate * _HOLD_MS // 1_000
    with run.deployment.place(flow.sessions + coming) as place, system.server(place) as server:
        requests = server.streams(newest=True)[flow.sessions :]
        with readers(server.port, requests, "churn", rate=rate, hold_ms=_HOLD_MS) as client:
            reading = measured(run, server, place, flow)
            counted = client.counted()
    joins = {
        "join_p50_ms": counted.joining.ms(50),
        "join_p99_ms": counted.joining.ms(99),
        "joins_per_s": counted.answered / counted.seconds,
        "joins_refused": counted.refused,
    }
    return msgspec.structs.replace(reading, values={**reading.values, **joins})
