"""The narrowest place: an API that dies when the run is stored and its first event perhaps not yet."""

from __future__ import annotations

import asyncio
import os
import signal
from contextlib import suppress
from typing import Any

from tests.faults.session import Session

from tailrace.mongo import Database

__all__ = ["break_api_while_admitting"]


async def break_api_while_admitting(
    session: Session, database: Database, *, waiting: bool, freeze: bool
) -> str:
    """A first run; a second one whose API is killed or frozen as soon as its document is seen, and whose
    first attempt is then killed as well. With `waiting` the first one still runs meanwhile.
    """
    topology = session.topology
    n = session.rng.randrange(2)
    api = topology.apis[n]
    first = await session.post("write 200 words" if waiting else "write 10 words", api=n)
    await _when(lambda: (len(session.frames) > 20) if waiting else (first in session.finished), 60)
    # Between the two writes the API tries the second one again and again, until it is hit there.
    primary = await topology.primary()
    refused = {"failCommands": ["insert"], "namespace": "torture.events", "errorCode": 50}
    point = {"configureFailPoint": "failCommand", "mode": "alwaysOn", "data": refused}
    inserted = [{"$match": {"operationType": "insert", "fullDocument.session_id": session.session_id}}]
    async with await database["runs"].watch(inserted, max_await_time_ms=1000) as changes:
        await topology.command(primary, point)
        posting = asyncio.create_task(session.post("write 60 words", api=n))
        change: dict[str, Any] | None = None
        while change is None:
            change = await changes.try_next()
    os.kill(api.pid or 0, signal.SIGSTOP)
    await topology.command(primary, {"configureFailPoint": "failCommand", "mode": "off"})
    if freeze:
        await asyncio.sleep(14)
        os.kill(api.pid or 0, signal.SIGCONT)
    else:
        topology.down.add(api.name)
        api.kill()
        await asyncio.sleep(1.5)
        api.start()
        topology.down.discard(api.name)
    run_id = await posting
    found = await database["runs"].find_one({"_id": run_id}) or {}
    said = f"{api.name}; run {run_id} was left with first_seq {found.get('first_seq')}"
    with suppress(TimeoutError):
        await _kill_attempt(database, run_id)
    await topology.ready(n)
    return said


async def _kill_attempt(database: Database, run_id: str) -> None:
    async with asyncio.timeout(30):
        while True:
            run = await database["runs"].find_one({"_id": run_id}) or {}
            if run.get("state") == "running" and run.get("worker") and run["attempt"] == 1:
                await asyncio.sleep(0.7)
                with suppress(ProcessLookupError):
                    os.kill(int(run["worker"].split(":")[1]), signal.SIGKILL)
                return
            if run.get("finished_at"):
                return
            await asyncio.sleep(0.1)


async def _when(condition: Any, seconds: float) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            while not condition():  # noqa: ASYNC110 - what is waited for is in other processes
                await asyncio.sleep(0.1)
