"""Races that are narrow by nature, and wide while one command of one process takes its time or fails."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import msgspec
from tests.faults.session import Session
from tests.faults.topology import Topology, parent_of

from tailrace.mongo import Database

__all__ = ["RACES", "Race", "Stage"]


class Stage(msgspec.Struct, frozen=True, kw_only=True):
    """What a race is run on."""

    topology: Topology
    database: Database
    begin: Callable[[], Session]  # a session of the race's own
    read: Callable[[Session], None]  # readers join it
    rng: random.Random


Race = Callable[[Stage], Awaitable[str]]  # what happened, in words
BEGIN_SECONDS = 30.0  # for a run to be taken, or to end
JOINERS = 8


async def join_while_tail_opens(stage: Stage) -> str:
    """Readers join runs while the change stream takes its time to open: it is open when they are over."""
    milliseconds = 1_200
    slow = {"blockConnection": True, "blockTimeMS": milliseconds}
    async with _failing(stage.topology, "aggregate", "events", **slow):
        for n in range(JOINERS):
            session = stage.begin()
            try:
                await session.post(f"write {stage.rng.randint(3, 12)} words", api=n)
            finally:
                session.posting = False
            await asyncio.sleep(stage.rng.uniform(0, 0.5))
            stage.read(session)
        await asyncio.sleep(2 * milliseconds / 1000)
    return f"{JOINERS} sessions"


async def post_while_appends_are_slow(stage: Stage) -> str:
    """Each further prompt is told of where a batch of the running run was about to go: it collides."""
    session = stage.begin()
    stage.read(session)
    posts = 4
    try:
        run_id = await session.post("write 150 words", api=stage.rng.randrange(2))
        worker, _ = await _worker(stage.topology, stage.database, run_id)
        slow = {"blockConnection": True, "blockTimeMS": 400}
        async with _failing(stage.topology, "insert", "events", appName=worker, **slow):
            for _ in range(posts):
                await asyncio.sleep(stage.rng.uniform(0.3, 0.6))
                await session.post("write 5 words", api=stage.rng.randrange(2))
    finally:
        session.posting = False
    return f"{posts} prompts beside run {run_id} of {worker}"


async def kill_horse_as_it_ends(stage: Stage) -> str:
    """Its `finish` stands in the log, and the run's document does not say so yet."""
    session = stage.begin()
    stage.read(session)
    try:
        run_id = await session.post("write 40 words", api=stage.rng.randrange(2))
    finally:
        session.posting = False
    worker, horse = await _worker(stage.topology, stage.database, run_id)
    async with _failing(stage.topology, "update", "runs", appName=worker, errorCode=189):
        with suppress(TimeoutError):
            async with asyncio.timeout(BEGIN_SECONDS):
                while run_id not in session.finished:  # noqa: ASYNC110 - in other processes
                    await asyncio.sleep(0.02)
        with suppress(ProcessLookupError):
            os.kill(horse, signal.SIGKILL)
    # The next attempt closes the document, or tells the run once more; nobody waits for it but the harness.
    with suppress(TimeoutError):
        async with asyncio.timeout(BEGIN_SECONDS):
            while await stage.database["runs"].find_one({"_id": run_id, "active": True}):  # noqa: ASYNC110
                await asyncio.sleep(0.1)
    return f"{horse} of {worker}, run {run_id} of {session.session_id}"


RACES: dict[str, Race] = {
    "join while the tail opens": join_while_tail_opens,
    "post while appends are slow": post_while_appends_are_slow,
    "kill horse as it ends": kill_horse_as_it_ends,
}


@asynccontextmanager
async def _failing(topology: Topology, command: str, collection: str, **how: Any) -> AsyncIterator[None]:
    """The primary's `failCommand` for one command on one collection, inside the block."""
    primary = await topology.primary()
    data = {"failCommands": [command], "namespace": f"torture.{collection}", **how}
    await topology.command(primary, {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": data})
    try:
        yield
    finally:
        await topology.command(primary, {"configureFailPoint": "failCommand", "mode": "off"})


async def _worker(topology: Topology, database: Database, run_id: str) -> tuple[str, int]:
    """The name of the pool that performs the run, and the horse's process; waits until one does."""
    async with asyncio.timeout(BEGIN_SECONDS):
        while True:
            run = await database["runs"].find_one({"_id": run_id}) or {}
            with suppress(StopIteration, OSError):
                horse = int((run.get("worker") or "::").split(":")[1] or 0)
                ancestors = {parent_of(parent_of(horse))} if horse else set()
                return next(pool.name for pool in topology.pools if pool.pid in ancestors), horse
            await asyncio.sleep(0.05)
