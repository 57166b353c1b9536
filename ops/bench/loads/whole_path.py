"""(g) The whole path: a prompt, a queue, a worker's process, an agent, the log, the client."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import msgspec
from ops.bench.client import Counted, readers
from ops.bench.deployment import Place, owner
from ops.bench.loads.path_floor import floor_of_runs
from ops.bench.loads.run_moments import MODEL_MS, STARTED, beyond_pace, first_token, started
from ops.bench.pace import TOKENS_PER_SECOND, Pace
from ops.bench.peer import python_environ
from ops.bench.process import cpu_seconds, descendants, memory, usage
from ops.bench.reading import Reading
from ops.bench.run import Run
from ops.bench.system import FLOOR, TAILRACE, Server

from tailrace.child import Child
from tailrace.dev import child_environ
from tailrace.tokens import mint

__all__ = ["whole_path"]

_REST_WITHIN_SECONDS = 30.0
_AT_REST_CORES = 0.2  # fifty workers and their spares watch MongoDB and Redis


def whole_path(run: Run) -> Iterator[Reading]:
    """Runs of 160 tokens at 20 a second through RQ workers, 10 of them posted a second: 20 of them, and 50.

    Beside them their floor: as many bare processes, begun at the same pace.
    """
    pace = Pace(tokens=round(run.seconds(Pace().seconds, least=0.5) * TOKENS_PER_SECOND))
    for runs in run.runs:
        count, case = run.many(runs, least=min(2, runs)), f"{runs} runs"
        for system in run.interleaved(TAILRACE, FLOOR):
            if system is FLOOR:
                yield floor_of_runs(run, count, pace, case=case)
            else:
                yield _through_workers(run, count, pace, case=case)


def _through_workers(run: Run, count: int, pace: Pace, *, case: str) -> Reading:
    run.say(f"(g) {count} runs: {TAILRACE.label}")
    with (
        run.deployment.place(0) as place,
        TAILRACE.server(place) as server,
        _workers(place, count) as pool,
    ):
        _warm(server, place, pace)
        _await_rest(pool)
        posts = _posts(place, "run", count, pace)
        with usage({"server": server.pid, "mongod": run.mongod}) as used:
            counted, values = _measured(server, pool, posts, pace)
    frames = max(1, counted.events)
    values = {
        "p50_ms": counted.latency.ms(50),
        "p99_ms": counted.latency.ms(99),
        **_moments(counted, pace),
        "server_cpu_us_per_frame": used.cpu["server"] / frames * 1e6,
        "mongod_cpu_us_per_frame": used.cpu["mongod"] / frames * 1e6,
        **values,
        "missing": count * pace.tokens - counted.events,
    }
    return Reading(load="g", case=case, system=TAILRACE.name, values=values, latency=counted.latency)


def _measured(
    server: Server, pool: Child, posts: list[bytes], pace: Pace
) -> tuple[Counted, dict[str, float]]:
    """What the load generator saw, and what the runs' processes took."""
    assert pool.pid is not None
    count, cpu = len(posts), _cpu_of_all(pool.pid)
    with readers(
        server.port,
        posts,
        n=count,
        inflight=count,
        rate=pace.rate,
        once=1,
        finish=1,
        details=1,
        mark=STARTED,
    ) as client:
        time.sleep(count / pace.rate + pace.seconds / 8)  # all are under way, and the first is not done
        private = _private(pool.pid)
        counted = client.counted(within=60)
    return counted, {
        "private_mib_per_run": statistics.median(sorted(private)[-count:]) / 2**20,
        "private_mib_per_run_with_parents": sum(private) / count / 2**20,
        "worker_cpu_s_per_run": (_cpu_of_all(pool.pid) - cpu) / count,
    }


def _moments(counted: Counted, pace: Pace) -> dict[str, float]:
    start, token = started(counted), first_token(counted)
    return {
        "post_to_agent_start_p50_ms": start.ms(50),
        "post_to_agent_start_p99_ms": start.ms(99),
        "first_token_beyond_model_p50_ms": token.ms(50) - MODEL_MS,
        "first_token_beyond_model_p99_ms": token.ms(99) - MODEL_MS,
        "longest_run_beyond_pace_percent": beyond_pace(counted, pace.seconds),
    }


@contextmanager
def _workers(place: Place, count: int) -> Iterator[Child]:
    settings = place.settings(agents="bench=ops.bench.agent:build")
    child = Child(
        "workers",
        [sys.executable, "-m", "tailrace_worker", "-n", str(count)],
        log=place.directory / "workers.log",
        environ=child_environ(settings, python_environ()),
    )
    child.start()
    try:
        yield child
    finally:
        child.stop(patience=10)


def _warm(server: Server, place: Place, pace: Pace) -> None:
    """One run, so that the workers are there and the API has done it once."""
    with readers(server.port, _posts(place, "warm", 1, pace), n=1, once=1, finish=1) as client:
        client.counted(within=90)


def _await_rest(pool: Child) -> None:
    """Return when each worker has its spare process: in use, they were started long ago."""
    assert pool.pid is not None
    deadline = time.monotonic() + _REST_WITHIN_SECONDS
    while time.monotonic() < deadline:
        before = _cpu_of_all(pool.pid)
        time.sleep(1)
        if _cpu_of_all(pool.pid) - before < _AT_REST_CORES:
            return


def _posts(place: Place, name: str, count: int, pace: Pace) -> list[bytes]:
    asked = {"prompt": "Write on.", "agent": "bench", "metadata": {"tokens": pace.tokens}}
    body = msgspec.json.encode(asked)
    return [_post(place, f"{name}{nth:03d}", body) for nth in range(count)]


def _post(place: Place, session: str, body: bytes) -> bytes:
    head = (
        f"POST /api/apps/{session}/agent/generate HTTP/1.1\r\nHost: bench\r\nConnection: close\r\n"
        f"Authorization: Bearer {mint(place.settings(), user=owner(session))}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def _private(pool: int) -> list[int]:
    """Bytes that each process of the pool has for itself alone."""
    found = []
    for pid in descendants(pool):
        try:
            found.append(memory(pid)[1])
        except (OSError, KeyError):  # it has ended meanwhile
            continue
    return found


def _cpu_of_all(pool: int) -> float:
    """CPU seconds of the pool's processes, and of those that have ended under them."""
    total = 0.0
    for pid in (pool, *descendants(pool)):
        with suppress(OSError):  # it has ended meanwhile: its parent's account has it
            total += cpu_seconds(pid, ended=True)
    return total
