"""Readers that join a session, and then take nothing of it."""

from __future__ import annotations

import asyncio
import socket
from contextlib import ExitStack

from tests.faults.races import Stage
from tests.faults.session import Session
from tests.faults.topology import Topology

__all__ = ["take_nothing"]

READERS = 150  # of each API
RUNS = 3  # of the agent that says much
SECONDS = 2.0  # for the measure of what is kept
RECEIVE_BYTES = 4096  # what the kernel may take in their place


async def take_nothing(stage: Stage) -> str:
    """Many of each API, of a session that then grows by some megabytes, beside readers that read."""
    session = stage.begin()
    stage.read(session)
    try:
        await session.post("write 3 words", api=stage.rng.randrange(2))
        with ExitStack() as sockets:
            for n in range(2 * READERS):
                sockets.enter_context(_asking(stage.topology, session, n))
                await asyncio.sleep(0.005)
            for n in range(RUNS):
                await session.post("say all", api=n, agent="torture")
            async with asyncio.timeout(session.patience):
                while session.accepted.keys() - session.finished:  # noqa: ASYNC110 - in other processes
                    await asyncio.sleep(0.1)
            await asyncio.sleep(SECONDS)
    finally:
        session.posting = False
    size = sum(len(frame) for frame in session.frames.values())
    return f"{2 * READERS} of {size / 1e6:.1f} MB each"


def _asking(topology: Topology, session: Session, n: int) -> socket.socket:
    reader = socket.socket()
    reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BYTES)
    reader.connect(("127.0.0.1", topology.ports[n % 2]))
    lines = [
        f"GET {session.path}/stream-continue?follow=session HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {topology.token}",
    ]
    reader.sendall("\r\n".join([*lines, "", ""]).encode())
    return reader
