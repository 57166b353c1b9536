"""The faults: each breaks one thing, and has healed it when it returns."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

from pymongo.errors import PyMongoError
from tests.faults.topology import Topology, parent_of

from tailrace.child import Child
from tailrace.jobs import Jobs
from tailrace.mongo import Database
from tailrace.runs import Runs

__all__ = ["FAULTS", "Fault"]

Fault = Callable[[Topology, Database, random.Random], Awaitable[str]]
DOWN_SECONDS = (0.5, 3.0)
VICTIM_TRIES = 100  # a tenth of a second each, until something runs that can be hit


def _kill(pid: int | None, number: signal.Signals = signal.SIGKILL) -> None:
    if pid is not None:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


async def _restart(topology: Topology, child: Child, start: Callable[[], None], rng: random.Random) -> str:
    topology.down.add(child.name)
    pid = child.pid
    child.kill()
    seconds = rng.uniform(*DOWN_SECONDS)
    await asyncio.sleep(seconds)
    start()
    topology.down.discard(child.name)
    return f"{child.name} {pid}, back after {seconds:.1f} s"


async def _freeze(pid: int | None, seconds: float) -> str:
    if pid is None:
        return "nothing to stop"
    _kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(seconds)
    finally:
        _kill(pid, signal.SIGCONT)
    return f"{pid} for {seconds:g} s"


async def kill_api(topology: Topology, _: Database, rng: random.Random) -> str:
    n = rng.randrange(2)
    said = await _restart(topology, topology.apis[n], topology.apis[n].start, rng)
    await topology.ready(n)
    return said


async def term_api(topology: Topology, _: Database, rng: random.Random) -> str:
    """A rolling restart: SIGTERM, wait for its end, start again."""
    n = rng.randrange(2)
    child = topology.apis[n]
    topology.down.add(child.name)
    _kill(child.pid, signal.SIGTERM)
    began = asyncio.get_running_loop().time()
    while child.running:  # noqa: ASYNC110 - what is waited for is in other processes
        await asyncio.sleep(0.05)
    took = asyncio.get_running_loop().time() - began
    child.start()
    topology.down.discard(child.name)
    await topology.ready(n)
    return f"{child.name} ended in {took:.1f} s with {child.exit_code}"


async def stop_api(topology: Topology, _: Database, rng: random.Random) -> str:
    return await _freeze(topology.apis[rng.randrange(2)].pid, 5)


async def _horses(topology: Topology, database: Database) -> list[int]:
    """Those that perform a run, as soon as one does, and not the spares; none if none comes."""
    for _ in range(VICTIM_TRIES):
        running = await database["runs"].find({"state": "running"}, {"worker": 1}).to_list(None)
        performing = {pid for run in running for pid in run["worker"].split(":")}
        if horses := [pid for pid in topology.horses() if str(pid) in performing]:
            return horses
        await asyncio.sleep(0.1)
    return []


async def kill_horse(topology: Topology, database: Database, rng: random.Random) -> str:
    horses = await _horses(topology, database)
    if not horses:
        return "no horse"
    pid = rng.choice(horses)
    _kill(pid)
    return f"{pid}, one of {len(horses)}"


async def stop_horse(topology: Topology, database: Database, rng: random.Random) -> str:
    horses = await _horses(topology, database)
    return await _freeze(rng.choice(horses) if horses else None, 12)


async def kill_worker(topology: Topology, database: Database, rng: random.Random) -> str:
    """Its horse dies with it: only the lease tells of that."""
    horses = await _horses(topology, database)
    if not horses:
        return "no horse"
    horse = rng.choice(horses)
    try:
        worker = parent_of(horse)
    except OSError:
        return "the horse ended by itself"
    _kill(worker)
    return f"{worker}, the parent of {horse}"


async def kill_pool(topology: Topology, _: Database, rng: random.Random) -> str:
    child = topology.pools[rng.randrange(2)]
    return await _restart(topology, child, child.start, rng)


async def _kill_mongod(topology: Topology, n: int, rng: random.Random) -> str:
    child = topology.mongods[n].child
    said = await _restart(topology, child, lambda: topology.start_mongod(n), rng)
    return f"member {n}: {said}"


async def kill_primary(topology: Topology, _: Database, rng: random.Random) -> str:
    return await _kill_mongod(topology, await topology.primary(), rng)


async def kill_secondary(topology: Topology, _: Database, rng: random.Random) -> str:
    n = (await topology.primary() + rng.choice((1, 2))) % 3
    return await _kill_mongod(topology, n, rng)


async def stop_primary(topology: Topology, _: Database, __: random.Random) -> str:
    n = await topology.primary()
    return f"member {n}: " + await _freeze(topology.mongods[n].child.pid, 5)


async def step_down(topology: Topology, _: Database, __: random.Random) -> str:
    n = await topology.primary()
    with suppress(PyMongoError):
        await topology.command(n, {"replSetStepDown": 5, "secondaryCatchUpPeriodSecs": 3})
    return f"member {n}; now {await topology.primary()}"


async def kill_valkey(topology: Topology, _: Database, rng: random.Random) -> str:
    return await _restart(topology, topology.valkey.child, topology.start_valkey, rng)


def _getmore(code: int) -> Fault:
    async def fail_getmore(topology: Topology, _: Database, rng: random.Random) -> str:
        n = await topology.primary()
        times = rng.randint(1, 4)
        point = {
            "configureFailPoint": "failCommand",
            "mode": {"times": times},
            "data": {"failCommands": ["getMore"], "errorCode": code, "namespace": "torture.events"},
        }
        await topology.command(n, point)
        await asyncio.sleep(2)
        with suppress(PyMongoError):
            await topology.command(n, {"configureFailPoint": "failCommand", "mode": "off"})
        return f"{times} times on member {n}"

    return fail_getmore


async def enqueue_twice(topology: Topology, database: Database, rng: random.Random) -> str:
    for _ in range(VICTIM_TRIES):
        if active := await database["runs"].find({"active": True}).to_list(None):
            break
        await asyncio.sleep(0.1)
    else:
        return "no run"
    chosen: dict[str, Any] = rng.choice(active)
    run = await Runs(database).get(chosen["session_id"], chosen["_id"])
    if run is None:
        return "no run"
    jobs = Jobs(topology.settings)
    await jobs.enqueue(run)
    jobs.close()
    return f"run {run.run_id} of {run.session_id}, {run.state}, attempt {run.attempt}"


FAULTS: dict[str, Fault] = {
    "kill api": kill_api,
    "kill horse": kill_horse,
    "kill worker": kill_worker,
    "kill worker pool": kill_pool,
    "kill primary": kill_primary,
    "kill secondary": kill_secondary,
    "kill valkey": kill_valkey,
    "stop primary 5 s": stop_primary,
    "stop horse 12 s": stop_horse,
    "stop api 5 s": stop_api,
    "step down": step_down,
    "getMore 286": _getmore(286),
    "getMore 280": _getmore(280),
    "getMore 136": _getmore(136),
    "getMore 134": _getmore(134),
    "enqueue twice": enqueue_twice,
    "restart api": term_api,
}
