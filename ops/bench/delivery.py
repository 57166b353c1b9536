"""From a writer through a server to its readers: the measurement that most loads are made of."""

from __future__ import annotations

import sys

import msgspec
from ops.bench.client import Counted, readers
from ops.bench.deployment import Place
from ops.bench.peer import Peer
from ops.bench.process import usage
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.source import Spec
from ops.bench.system import Server, System

__all__ = ["Flow", "delivered", "disturbed", "measured"]

_SETTLE_SECONDS = 15.0  # for what is under way when the writer is done
_OTHERS_CORES = 0.2  # used by what is not part of the measurement: from there on it is disturbed
_CONNECTING = 64  # streams that are being opened at a time


class Flow(msgspec.Struct, frozen=True, kw_only=True):
    """What flows: `rate` events a second over `sessions`, each read by `readers`."""

    load: str
    case: str
    sessions: int
    rate: float  # events a second, of all sessions together
    seconds: float
    readers: int = 1  # of each session

    @property
    def warm_seconds(self) -> float:
        """How long it flows before it is measured."""
        return self.seconds / 4


def delivered(run: Run, system: System, flow: Flow) -> Reading:
    """One measurement in a fresh database with a fresh server."""
    run.say(f"({flow.load}) {flow.case}: {system.label}")
    with run.deployment.place(flow.sessions) as place, system.server(place) as server:
        return measured(run, server, place, flow)


def measured(run: Run, server: Server, place: Place, flow: Flow) -> Reading:
    """One measurement with a server that runs."""
    streams = flow.sessions * flow.readers
    with readers(server.port, server.streams(), n=streams, inflight=_CONNECTING) as client:
        ready = client.ready()
        with Peer([sys.executable, "-m", "ops.bench.source", _spec(place, server.system, flow)]) as source:
            source.hear("measuring", within=60 + flow.warm_seconds)
            pids = {"server": server.pid, "mongod": run.mongod, "writer": source.pid, "client": client.pid}
            with usage(pids) as used:
                done = source.hear("done", within=60 + flow.seconds)
                stored = done["stored"] * flow.readers
                counted = client.counted(expect=stored, within=_SETTLE_SECONDS)
    values = {
        "p50_ms": counted.latency.ms(50),
        "p99_ms": counted.latency.ms(99),
        "max_ms": counted.latency.ms(100),
        "frames_per_s": counted.measured / used.seconds,
        "server_cpu_us_per_frame": used.cpu["server"] / max(1, counted.measured) * 1e6,
        "server_cpu_us_per_event": used.cpu["server"] / max(1, done["measured"]) * 1e6,
        **{f"{name}_cores": seconds / used.seconds for name, seconds in used.cpu.items()},
        "missing": stored - counted.events,
        "holes": counted.holes,
        "doubles": counted.doubles,
        "streams_opened_per_s": streams / ready["seconds"],
        "writer_late_ms": done["latest"] * 1e3,
    }
    return Reading(
        load=flow.load,
        case=flow.case,
        system=server.system.name,
        values=values,
        latency=counted.latency,
        note=_note(counted, whole=done["whole"], others=values["others_cores"]),
    )


def _spec(place: Place, system: System, flow: Flow) -> str:
    spec = Spec(
        mongodb_url=place.mongodb_url,
        redis_url=place.redis_url,
        database=place.database,
        sessions=place.sessions[: flow.sessions],
        rate=flow.rate,
        warm_seconds=flow.warm_seconds,
        seconds=flow.seconds,
        to_redis=system.reads == "redis",
    )
    return msgspec.json.encode(spec).decode()


def disturbed(others: float) -> str:
    """What is to be said when the rest of the machine used that many cores; nothing when it was quiet."""
    return f"something else kept {others:.1f} cores busy" if others > _OTHERS_CORES else ""


def _note(counted: Counted, *, whole: bool, others: float) -> str:
    said = [] if whole else ["the writer could not write all in time"]
    if busy := disturbed(others):
        said.append(busy)
    if counted.refused or counted.lost:
        said.append(f"{counted.refused} streams refused, {counted.lost} lost")
    if counted.holes or counted.doubles:
        said.append(f"{counted.holes} events missing between others, {counted.doubles} twice")
    return "; ".join(said)
