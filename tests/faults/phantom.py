"""A phantom: what only a cut off primary has, and a failover takes away. No reader may ever be shown it."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
from pymongo import MongoClient
from pymongo.errors import PyMongoError
from tests.faults.session import Session
from tests.faults.topology import Topology, http_client

from tailrace.events import Event, event_id

__all__ = ["PHANTOM", "show_phantom"]

PHANTOM = "a phantom that was never committed"
COUNT = 3  # phantom events
CUT_SECONDS = 7.0  # at least; the others mostly have elected another primary by then
READ_SECONDS = 3.0  # for one answer, which may have to wait for a majority


async def show_phantom(session: Session, figures: Counter[str]) -> str:
    """Write events that no majority gets to `session`, and read it by both APIs meanwhile.

    The session has readers; it is done when its `posting` is false. Counts in `figures`.
    """
    topology = session.topology
    first = await session.post("write 10 words", api=0)
    deadline = time.monotonic() + session.patience
    while first not in session.finished and time.monotonic() < deadline:  # noqa: ASYNC110 - in other processes
        await asyncio.sleep(0.1)
    last = max(session.frames, default=0)
    n = await topology.primary()
    async with topology.network.parted(f"mongod{n}"):
        written = await asyncio.to_thread(_write, topology.mongods[n].port, session.session_id, first, last)
        reads, seen = await _look(session, CUT_SECONDS)
        await topology.replaced(n)  # else it stays primary, and what was written is replicated after all
    healed = time.monotonic()
    await topology.settled()
    while left := await asyncio.to_thread(_left, topology, session.session_id):
        # The member that was cut off may not have noticed yet that it has to roll back.
        if time.monotonic() > healed + session.patience:
            break
        await asyncio.sleep(0.2)
    await session.post("write 40 words", api=1)
    figures.update(phantoms=written, phantom_reads=reads, phantoms_seen=seen, phantoms_left=left)
    if left:
        session.blame("harness", f"{left} phantoms were not rolled back", last + 1)
    return f"{written} behind seq {last} of {session.session_id} on member {n}; {reads} reads, {seen} saw one"


def _write(port: int, session_id: str, run_id: str, last: int) -> int:
    """How many the primary alone has taken: none if it has noticed that it is alone."""
    now = time.time()
    events = [
        Event(
            event_id=event_id(session_id, seq),
            session_id=session_id,
            run_id=run_id,
            attempt=1,
            seq=seq,
            timestamp=now,
            event_type="custom",
            data={"value": PHANTOM},
            expires_at=datetime.now(UTC) + timedelta(days=1),
        )
        for seq in range(last + 1, last + 1 + COUNT)
    ]
    client: MongoClient[dict[str, Any]] = MongoClient(
        "127.0.0.1", port, directConnection=True, w=1, retryWrites=False, timeoutMS=1_500
    )
    with client, suppress(PyMongoError):
        found = client["torture"]["events"].insert_many([event.to_document() for event in events])
        return len(found.inserted_ids)
    return 0


async def _look(session: Session, seconds: float) -> tuple[int, int]:
    """Read the history by both APIs, over and over: how many answers came, how many held a phantom."""
    headers = {"Authorization": f"Bearer {session.topology.token}"}
    until = time.monotonic() + seconds

    async def read(client: httpx.AsyncClient, url: str, params: dict[str, Any]) -> tuple[int, int]:
        reads = seen = 0
        while time.monotonic() < until:
            with suppress(httpx.TransportError):
                answer = await client.get(url, headers=headers, params=params)
                reads += answer.status_code == 200
                if PHANTOM in answer.text:
                    seen += 1
                    session.blame(
                        "phantom", f"{answer.url} showed what no majority had: {answer.text[-300:]}"
                    )
            await asyncio.sleep(0.1)
        return reads, seen

    async with http_client(timeout=READ_SECONDS) as client:
        urls = [f"{session.topology.url(n)}{session.path}" for n in range(2)]
        reading = [read(client, f"{url}/stream-continue", {"follow": "none"}) for url in urls]
        reading += [read(client, f"{url}/events", {"limit": 100}) for url in urls]
        found = await asyncio.gather(*reading)
    return sum(reads for reads, _ in found), sum(seen for _, seen in found)


def _left(topology: Topology, session_id: str) -> int:
    """How many phantoms a member still has."""
    left = 0
    for member in topology.mongods:
        client: MongoClient[dict[str, Any]] = MongoClient(
            "127.0.0.1", member.port, directConnection=True, timeoutMS=10_000
        )
        query = {"session_id": session_id, "data.value": PHANTOM}
        try:
            with client:
                left += client["torture"]["events"].count_documents(query)
        except PyMongoError:
            left += COUNT  # it rolls back this moment
    return left
