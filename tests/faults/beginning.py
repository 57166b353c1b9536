"""A horse that freezes when it has taken its run and written nothing, and thaws when another has the run."""

from __future__ import annotations

import asyncio
import os
import random
import signal
from contextlib import suppress
from typing import Any

from tests.faults.topology import Topology

from tailrace.mongo import Database

__all__ = ["stop_horse_as_it_begins"]


async def stop_horse_as_it_begins(topology: Topology, database: Database, _: random.Random) -> str:
    """Its look at the session's messages, which comes before its first write, takes long enough to hit it."""
    primary = await topology.primary()
    slow: dict[str, Any] = {"failCommands": ["find"], "namespace": "torture.messages"}
    slow |= {"blockConnection": True, "blockTimeMS": 2_000}
    known = {run["_id"] async for run in database["runs"].find({"state": "running"})}
    await topology.command(primary, {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": slow})
    run: dict[str, Any] | None = None
    with suppress(TimeoutError):
        async with asyncio.timeout(15):
            while run is None:
                query = {"state": "running", "_id": {"$nin": sorted(known)}, "attempt": 1}
                run = await database["runs"].find_one(query)
                await asyncio.sleep(0.05)
    pid = int(run["worker"].split(":")[1]) if run else None
    if pid:
        os.kill(pid, signal.SIGSTOP)
    await topology.command(primary, {"configureFailPoint": "failCommand", "mode": "off"})
    if run is None or pid is None:
        return "no run began"
    await asyncio.sleep(11)
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGCONT)
    return f"{pid} of run {run['_id']} of {run['session_id']} for 11 s"
