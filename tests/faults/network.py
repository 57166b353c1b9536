"""The harness's side of the proxies: the addresses that everybody uses, and what to do to them."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from tailrace.child import Child, free_port

__all__ = ["MEMBERS", "Network"]

MEMBERS = ("mongod0", "mongod1", "mongod2")
_START_SECONDS = 20.0


class Network:
    """The proxies in front of `servers`, named ports: one process, so that a busy harness delays nothing.

    `at` names servers, `who` names those who connect to them: members, or clients by their `appName`; None
    is all of them, the harness too.
    """

    def __init__(self, servers: Mapping[str, int], *, log: Path) -> None:
        self.ports = {name: free_port() for name in servers}
        self._control = free_port()
        plan = {
            "control": self._control,
            "proxies": {name: (self.ports[name], port) for name, port in servers.items()},
        }
        self.child = Child("proxies", [sys.executable, "-m", "tests.faults.proxy", json.dumps(plan)], log=log)

    async def start(self) -> None:
        """Start them and wait until they listen."""
        self.child.start()
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while True:
            try:
                await self.turn("open", at=tuple(self.ports), who=None)
            except OSError:
                if asyncio.get_running_loop().time() > deadline or not self.child.running:
                    raise
                await asyncio.sleep(0.05)
            else:
                return

    async def turn(self, mode: str, *, at: Sequence[str], who: Sequence[str] | None) -> int:
        """Break, or with `open` heal, connections; returns how many there are.

        `freeze`, `slow`: until healed, new ones too. `refuse`: cut with a reset, and new ones as well.
        `reset`: cut those that are there. `half`: tell only who connected that they have ended. `dead`: those
        that are there say nothing any more, for ever, though nobody is told.
        """
        reader, writer = await asyncio.open_connection("127.0.0.1", self._control)
        try:
            writer.write(json.dumps({"mode": mode, "at": at, "who": who}).encode() + b"\n")
            return int(await reader.readline())
        finally:
            writer.close()

    @asynccontextmanager
    async def broken(self, mode: str, *, at: Sequence[str], who: Sequence[str] | None) -> AsyncIterator[int]:
        """Broken inside the block, healed behind it."""
        count = await self.turn(mode, at=at, who=who)
        try:
            yield count
        finally:
            await self.turn("open", at=at, who=who)

    @asynccontextmanager
    async def parted(self, *members: str) -> AsyncIterator[None]:
        """Each of `members` and the rest of the set hear nothing of one another; clients reach all."""
        others = [name for name in MEMBERS if name not in members] or list(members)
        for member in members:
            rest = [name for name in (*others, *members) if name != member]
            await self.turn("freeze", at=[member], who=rest)
            await self.turn("freeze", at=rest, who=[member])
        try:
            yield
        finally:
            await self.turn("open", at=MEMBERS, who=MEMBERS)
