"""(e) What was written before the reader came."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Iterator

from ops.bench.client import Counted, readers
from ops.bench.filling import filled
from ops.bench.process import cpu_seconds, peak
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import FLOOR, PER_CONNECTION, POLL, TAILRACE, Server

__all__ = ["EVENTS", "replay"]

EVENTS = 10_000  # of a session
_SESSIONS = 10
_AT_ONCE = 100
_PATIENCE_SECONDS = 120.0
_FIRST_BYTE, _FIRST_EVENT, _END = 2, 4, 5  # places in the load generator's account of a stream


def replay(run: Run) -> Iterator[Reading]:
    """A session of 10,000 events to one reader, and 100 readers of ten such at once."""
    events = run.many(EVENTS, least=500)
    with run.deployment.place(_SESSIONS) as place:
        run.say(f"(e) writing {_SESSIONS} sessions of {events:,} events")
        asyncio.run(filled(place, place.sessions, events))
        for system in run.interleaved(TAILRACE, FLOOR, once=(PER_CONNECTION, POLL)):
            run.say(f"(e) replay: {system.label}")
            with system.server(place) as server:
                _read(server, 1)  # what a first request loads is not measured
                yield _one(run, server, events)
                yield _many(run, server, events)


def _one(run: Run, server: Server, events: int) -> Reading:
    cpu = cpu_seconds(server.pid)
    seen = [_read(server, 1) for _ in range(run.many(8, least=2))]
    cpu = cpu_seconds(server.pid) - cpu
    seconds = [counted.streams[0][_END] / 1e9 for counted in seen]
    values = {
        "events_per_s": events / statistics.median(seconds),
        "first_byte_ms": statistics.median(counted.streams[0][_FIRST_BYTE] / 1e6 for counted in seen),
        "first_event_ms": statistics.median(counted.streams[0][_FIRST_EVENT] / 1e6 for counted in seen),
        "server_cpu_us_per_frame": cpu / (events * len(seen)) * 1e6,
        "missing": sum(events - counted.events for counted in seen),
    }
    return Reading(load="e", case="one reader", system=server.system.name, values=values)


def _many(run: Run, server: Server, events: int) -> Reading:
    count = run.many(_AT_ONCE, least=10)
    cpu = cpu_seconds(server.pid)
    with peak(server.pid) as seen:
        counted = _read(server, count)
    cpu = cpu_seconds(server.pid) - cpu
    first_bytes = sorted(stream[_FIRST_BYTE] / 1e6 for stream in counted.streams)
    values = {
        "events_per_s": counted.events / counted.seconds,
        "first_byte_ms": statistics.median(first_bytes),
        "first_byte_last_ms": first_bytes[-1],
        "server_cpu_us_per_frame": cpu / max(1, counted.events) * 1e6,
        "memory_grown_mib": (seen.most - seen.first) / 2**20,
        "missing": count * events - counted.events,
    }
    return Reading(load="e", case=f"{_AT_ONCE} readers at once", system=server.system.name, values=values)


def _read(server: Server, count: int) -> Counted:
    """Replays until the server has ended each."""
    with readers(server.port, server.replays(), n=count, inflight=count, finish=1, details=1) as client:
        return client.counted(within=_PATIENCE_SECONDS)
