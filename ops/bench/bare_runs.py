"""The floor's runs: bare processes whose agent's tokens go straight into the log. A program of its own.

    python -m ops.bench.bare_runs SPEC   # JSON, a `Bare`

A process for each run is forked from one parent that has imported everything; it connects and does a short
run before it is given one to do. There is no queue, no lease, no fence, no order, no end of a run: what
Python, LangChain, PyMongo and MongoDB cost before anything is promised.

It says on stdout `measuring`, when all are warm and none has begun, and `done` with what came of them.
"""

from __future__ import annotations

import asyncio
import gc
import multiprocessing
import sys
import time
from collections.abc import AsyncIterator
from multiprocessing.connection import Connection
from typing import Any

import msgspec
import uvloop
from langchain.agents import create_agent
from ops.bench.agent import PacedModel
from ops.bench.pace import Bare
from ops.bench.peer import end_with_stdin, tell
from ops.bench.source import event
from pymongo import AsyncMongoClient
from pymongo.asynchronous.collection import AsyncCollection

from tailrace.events import Event

_WARM_TOKENS = 4
_NOTICE_SECONDS = 0.3  # from `measuring` to the first run, for whoever begins to measure

Events = AsyncCollection[dict[str, Any]]


class _Told(msgspec.Struct, frozen=True, kw_only=True):
    """What came of one run."""

    stored: int  # tokens
    started_seconds: float  # from when it was due to the acknowledgement of its `agent_start`
    seconds: float  # from then to the last insert's acknowledgement
    cpu_seconds: float  # of its process meanwhile


class _Child:
    """A run's process, forked and made ready by this one."""

    def __init__(self, spec: Bare, session: str) -> None:
        forking = multiprocessing.get_context("fork")
        self.pipe, its = forking.Pipe()
        self._process = forking.Process(target=_be_child, args=(spec, session, its), daemon=True)
        self._process.start()
        its.close()

    def told(self) -> _Told:
        """What came of its run, when it has ended. Raises `EOFError` if it failed."""
        told: _Told = self.pipe.recv()
        self._process.join()
        return told


def _main(spec: Bare) -> None:
    asyncio.run(_rehearse())
    gc.freeze()  # as tailrace_worker.preload: a collection in a child would touch, and so copy, every page
    children = [_Child(spec, session) for session in spec.sessions]
    end_with_stdin()  # not before the forks: it is a thread
    for child in children:
        child.pipe.recv()
    tell("measuring")
    first = time.monotonic() + _NOTICE_SECONDS
    for nth, child in enumerate(children):
        child.pipe.send(first + nth / spec.pace.rate)
    told = [child.told() for child in children]
    tell(
        "done",
        stored=sum(one.stored for one in told),
        started_seconds=[one.started_seconds for one in told],
        longest_beyond_pace_percent=100 * (max(one.seconds for one in told) / spec.pace.seconds - 1),
        cpu_seconds=sum(one.cpu_seconds for one in told),
    )


def _be_child(spec: Bare, session: str, parent: Connection) -> None:
    end_with_stdin()
    uvloop.run(_run(spec, session, parent))


async def _run(spec: Bare, session: str, parent: Connection) -> None:
    """Warm up, tell the parent, and be told when to begin (CLOCK_MONOTONIC, s)."""
    async with AsyncMongoClient[dict[str, Any]](spec.mongodb_url, w="majority") as client:
        database = client[spec.database]
        await _answer(PacedModel(tokens=_WARM_TOKENS), session, database["warm"])
        parent.send(None)
        at = await asyncio.to_thread(parent.recv)  # the client's loop runs meanwhile
        await asyncio.sleep(max(0.0, at - time.monotonic()))
        cpu = time.process_time()
        await database["events"].insert_one(_agent_start(session).to_document())
        began = time.monotonic()
        stored = await _answer(PacedModel(tokens=spec.pace.tokens), session, database["events"])
        seconds, cpu = time.monotonic() - began, time.process_time() - cpu
        parent.send(_Told(stored=stored, started_seconds=began - at, seconds=seconds, cpu_seconds=cpu))


def _agent_start(session: str) -> Event:
    return msgspec.structs.replace(event(session, 1, time.time(), ""), event_type="agent_start")


async def _answer(model: PacedModel, session: str, events: Events) -> int:
    """One run, behind its `agent_start`; how many tokens it stored."""
    seq = 1
    async for text in _tokens(model):
        seq += 1
        await events.insert_one(event(session, seq, time.time(), text).to_document())
    return seq - 1


async def _rehearse() -> None:
    async for _ in _tokens(PacedModel(tokens=_WARM_TOKENS)):
        pass


async def _tokens(model: PacedModel) -> AsyncIterator[str]:
    agent: Any = create_agent(model, [])
    asked = {"messages": [{"role": "user", "content": "Write on."}]}
    async for message, _ in agent.astream(asked, stream_mode="messages"):
        if message.content:
            yield message.content


if __name__ == "__main__":
    _main(msgspec.json.decode(sys.argv[1], type=Bare))
