"""What must still be so when the fuzzing is over: the same processes, every run ended, no event lost."""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from typing import Any

import httpx
from pymongo import MongoClient
from redis import Redis
from rq import Queue, Worker
from tests.e2e.stack import Stack

from tailrace.settings import Settings

__all__ = ["audit", "pids"]

ENDED_WITHIN = 240.0  # seconds, for the runs that the fuzzing has left in the queue

_ERROR = re.compile(r"\bERROR\b|\bCRITICAL\b|Traceback")


def pids(stack: Stack) -> dict[str, Any]:
    """The ids of the processes that must live through it all: API, supervisor, workers."""
    settings = stack.settings
    with Redis.from_url(settings.redis_url) as redis:
        workers = sorted(
            worker.pid or 0 for worker in Worker.all(queue=Queue(settings.queue, connection=redis))
        )
    assert stack.api.running, stack.api.obituary()
    assert stack.worker.running, stack.worker.obituary()
    return {"api": stack.api.pid, "supervisor": stack.worker.pid, "workers": workers}


async def audit(stack: Stack, before: dict[str, Any]) -> list[str]:
    """What is wrong."""
    wrong = await asyncio.to_thread(_log, stack.settings)
    after = pids(stack)
    if after != before:
        wrong.append(f"processes: {before} before, {after} after")
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        ready = await client.get(f"{stack.url}/readyz")
    if ready.status_code != 200:
        wrong.append(f"not ready: {ready.text}")
    text = stack.api.log.read_text(errors="replace")
    wrong += [f"the API's log: {line[:500]}" for line in text.splitlines() if _ERROR.search(line)][:20]
    return wrong


def _log(settings: Settings) -> list[str]:
    """Wait until every run has ended, then read all of the log."""
    with MongoClient[dict[str, Any]](settings.mongodb_url) as client:
        database = client[settings.mongodb_db]
        deadline = time.monotonic() + ENDED_WITHIN
        while database["runs"].find_one({"finished_at": None}) and time.monotonic() < deadline:
            time.sleep(0.2)
        runs = list(database["runs"].find({}, {"session_id": 1, "finished_at": 1, "state": 1}))
        wrong = [f"run {run['_id']} is {run['state']}" for run in runs if run.get("finished_at") is None]
        finishes: Counter[str] = Counter()
        last: dict[str, int] = {}
        for event in (
            database["events"]
            .find({}, {"session_id": 1, "seq": 1, "run_id": 1, "event_type": 1})
            .sort([("session_id", 1), ("seq", 1)])
        ):
            session, seq = event["session_id"], event["seq"]
            if session in last and seq != last[session] + 1:
                wrong.append(f"{session}: {seq} after {last[session]}")
            last[session] = seq
            finishes[event["run_id"]] += event["event_type"] == "finish"
        wrong += [
            f"run {run['_id']}: {finishes[run['_id']]} times finish"
            for run in runs
            if finishes[run["_id"]] != 1
        ]
    return wrong
