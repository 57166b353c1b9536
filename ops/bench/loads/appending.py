"""(f) Appending as fast as the log takes it, and what an event weighs on disk."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import msgspec
from bson import Timestamp
from ops.bench.appender import Spec, Way
from ops.bench.deployment import Deployment, Place
from ops.bench.peer import Peer
from ops.bench.process import cpu_seconds
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import TAILRACE

__all__ = ["appending"]

RUNS = 50
_CASES: tuple[tuple[Way, int], ...] = (
    ("one insert at a time", 1),
    ("emitter", 1),
    ("emitter, tokens", 1),
    ("emitter", RUNS),
    ("emitter, tokens", RUNS),
)


def appending(run: Run) -> Iterator[Reading]:
    """One run and fifty runs flat out, with group commit; one insert at a time beside it."""
    for _ in run.interleaved(TAILRACE):
        for way, runs in _CASES:
            run.say(f"(f) append: {runs} × {way}")
            yield _appended(run, way, runs)


def _appended(run: Run, way: Way, runs: int) -> Reading:
    deployment = run.deployment
    with deployment.place(runs) as place:
        since = _cluster_time(deployment)
        cpu = cpu_seconds(run.mongod)
        told = _flat_out(place, way, run.seconds(5))
        cpu = cpu_seconds(run.mongod) - cpu
        stored = sum(one["stored"] for one in told)
        weight = _weight(deployment, place, since) if runs == 1 else {}
    values = {
        "events_per_s": sum(one["stored"] / one["seconds"] for one in told),
        "emitted_per_s": sum(one["emitted"] / one["seconds"] for one in told),
        "mongod_cpu_us_per_event": cpu / max(1, stored) * 1e6,
        **weight,
    }
    return Reading(load="f", case=f"{runs} × {way}", system=TAILRACE.name, values=values)


def _flat_out(place: Place, way: Way, seconds: float) -> list[dict[str, Any]]:
    """What each process of writers told; as many processes as cores, as runs are processes too."""
    count = min(len(place.sessions), os.cpu_count() or 1)
    with ExitStack() as stack:
        peers = [
            stack.enter_context(Peer(_argv(place, place.sessions[nth::count], way, seconds)))
            for nth in range(count)
        ]
        return [peer.hear("end", within=seconds + 60) for peer in peers]


def _argv(place: Place, sessions: tuple[str, ...], way: Way, seconds: float) -> list[str]:
    spec = Spec(
        mongodb_url=place.mongodb_url,
        database=place.database,
        sessions=sessions,
        way=way,
        seconds=seconds,
    )
    return [sys.executable, "-m", "ops.bench.appender", msgspec.json.encode(spec).decode()]


def _cluster_time(deployment: Deployment) -> Timestamp:
    found = deployment.client.admin.command("ping")["$clusterTime"]["clusterTime"]
    assert isinstance(found, Timestamp)
    return found


def _weight(deployment: Deployment, place: Place, since: Timestamp) -> dict[str, float]:
    """Bytes of an event: in the oplog, as a document, on disk, and in each index."""
    deployment.client.admin.command("fsync")  # a checkpoint: until then the files say little
    time.sleep(0.5)
    database = deployment.client[place.database]
    events = database.command("collStats", "events")
    count = max(1, events["count"])
    entries = deployment.client.local["oplog.rs"].aggregate(
        [
            # An `applyOps` of a batch names its collection inside.
            {"$match": {"ts": {"$gt": since}, "$or": [{"ns": f"{place.database}.events"}, _inside(place)]}},
            {"$group": {"_id": None, "bytes": {"$sum": {"$bsonSize": "$$ROOT"}}}},
        ]
    )
    oplog = sum(entry["bytes"] for entry in entries)
    indexes = {f"index_{name}_bytes": size / count for name, size in events["indexSizes"].items()}
    return {
        "oplog_bytes": oplog / count,
        "document_bytes": events["size"] / count,
        "storage_bytes": events["storageSize"] / count,
        "indexes_bytes": events["totalIndexSize"] / count,
        **indexes,
    }


def _inside(place: Place) -> dict[str, str]:
    return {"o.applyOps.ns": f"{place.database}.events"}
