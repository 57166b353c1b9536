"""The floor of (g): the same agents in bare processes, delivered by the floor's server."""

from __future__ import annotations

import sys

import msgspec
from ops.bench.client import readers
from ops.bench.delivery import disturbed
from ops.bench.deployment import Place
from ops.bench.histogram import Histogram
from ops.bench.loads.run_moments import MODEL_MS, STARTED, first_token
from ops.bench.pace import Bare, Pace
from ops.bench.peer import Peer
from ops.bench.process import usage
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import FLOOR

__all__ = ["floor_of_runs"]

_WARM_WITHIN_SECONDS = 120.0  # fifty processes make themselves ready side by side
_DONE_WITHIN_SECONDS = 120.0
_SETTLE_SECONDS = 15.0  # for what is under way when the last run is done


def floor_of_runs(run: Run, count: int, pace: Pace, *, case: str) -> Reading:
    """`count` runs at that pace, in a fresh database."""
    run.say(f"(g) {count} runs: {FLOOR.label}, bare processes")
    with (
        run.deployment.place(count) as place,
        FLOOR.server(place) as server,
        readers(server.port, server.streams(), n=count, inflight=count, details=1, mark=STARTED) as client,
    ):
        client.ready()
        with Peer([sys.executable, "-m", "ops.bench.bare_runs", _spec(place, pace)]) as runs:
            runs.hear("measuring", within=_WARM_WITHIN_SECONDS)
            with usage({"server": server.pid, "mongod": run.mongod, "client": client.pid}) as used:
                done = runs.hear("done", within=_DONE_WITHIN_SECONDS)
                counted = client.counted(expect=done["stored"], within=_SETTLE_SECONDS)
    frames = max(1, counted.events)
    values = {
        "p50_ms": counted.latency.ms(50),
        "p99_ms": counted.latency.ms(99),
        "post_to_agent_start_p50_ms": Histogram.of(done["started_seconds"]).ms(50),
        "first_token_beyond_model_p50_ms": first_token(counted).ms(50) - MODEL_MS,
        "longest_run_beyond_pace_percent": done["longest_beyond_pace_percent"],
        "server_cpu_us_per_frame": used.cpu["server"] / frames * 1e6,
        "mongod_cpu_us_per_frame": used.cpu["mongod"] / frames * 1e6,
        "worker_cpu_s_per_run": done["cpu_seconds"] / count,
        "others_cores": max(0.0, used.cpu["others"] - done["cpu_seconds"]) / used.seconds,
        "missing": count * pace.tokens - counted.events,
    }
    return Reading(
        load="g",
        case=case,
        system=FLOOR.name,
        values=values,
        latency=counted.latency,
        note=disturbed(values["others_cores"]),
    )


def _spec(place: Place, pace: Pace) -> str:
    spec = Bare(mongodb_url=place.mongodb_url, database=place.database, sessions=place.sessions, pace=pace)
    return msgspec.json.encode(spec).decode()
