"""(c) Streams on which nothing happens: what each of them holds."""

from __future__ import annotations

import time
from collections.abc import Iterator

from ops.bench.client import readers
from ops.bench.process import cpu_seconds, memory
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import FLOOR, PER_CONNECTION, POLL, PUBSUB, TAILRACE, Server, System

__all__ = ["idle"]

STREAMS = 10_000
# A connection to MongoDB for each, a query or a task each half second: more would measure the collapse.
STREAMS_OF_OTHERS = 1_000
_FIRST_STREAMS = (
    50  # opened and closed before the base is taken: what a first request loads is not a stream's
)


def idle(run: Run) -> Iterator[Reading]:
    """10,000 streams on as many sessions, in one process; 1,000 of the designs that cannot hold so many."""
    for systems, count in (((TAILRACE, FLOOR), STREAMS), ((PER_CONNECTION, PUBSUB, POLL), STREAMS_OF_OTHERS)):
        for system in run.chosen(*systems):
            yield _held(run, system, run.many(count, least=50))


def _held(run: Run, system: System, count: int) -> Reading:
    run.say(f"(c) {count:,} idle streams: {system.label}")
    with run.deployment.place(count) as place, system.server(place) as server:
        with readers(server.port, server.streams()[:_FIRST_STREAMS], n=_FIRST_STREAMS) as client:
            client.ready()
        time.sleep(1)
        base_pss, base_private = memory(server.pid)
        with readers(server.port, server.streams(), n=count, inflight=64) as client:
            ready = client.ready(within=300)
            time.sleep(run.seconds(3))
            pss, private = memory(server.pid)
            cores = _cores(server, run.seconds(16))  # a keep-alive's period and more
            counted = client.counted()
    values = {
        "streams": counted.answered,
        "kib_per_stream": (private - base_private) / count / 1024,
        "pss_kib_per_stream": (pss - base_pss) / count / 1024,
        "base_mib": base_pss / 2**20,
        "all_mib": pss / 2**20,
        "server_cores": cores,
        "streams_opened_per_s": count / ready["seconds"],
        "lost": counted.lost,
    }
    return Reading(load="c", case="idle streams", system=system.name, values=values, latency=counted.joining)


def _cores(server: Server, seconds: float) -> float:
    before = cpu_seconds(server.pid)
    time.sleep(seconds)
    return (cpu_seconds(server.pid) - before) / seconds
