"""The deployment that is tortured: three mongod, Valkey, two APIs, two worker pools, all real processes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import msgspec
from pymongo import MongoClient
from pymongo.errors import PyMongoError

from tailrace.child import Child, free_port
from tailrace.dev import child_environ
from tailrace.embedded import Mongod, Valkey
from tailrace.mongo import connect, ensure_indexes
from tailrace.settings import Settings
from tailrace.tokens import mint

__all__ = ["Topology"]

ELECTION_MS, HEARTBEAT_MS = 2_000, 500
START_SECONDS = 90.0
SECRET = "only-for-the-tests-of-this-repository"
PLANTS = Path(__file__).parent / "plants"


class Topology:
    """Every process by name. Started from the main thread: whatever ends the harness ends them."""

    def __init__(self, place: Path, *, tokens_per_second: float, workers: int, plant: str | None) -> None:
        self.place = place
        self.down: set[str] = set()  # what a fault has ended, and will start again
        self.mongods = [
            Mongod(place / f"mongo{n}", log=place / f"mongo{n}.log", test_commands=True, cache_gb=0.25)
            for n in range(3)
        ]
        for n, member in enumerate(self.mongods):
            member.child.name = f"mongod{n}"  # as in `children` and `down`
        hosts = ",".join(f"127.0.0.1:{member.port}" for member in self.mongods)
        self.valkey = Valkey(place / "valkey", log=place / "valkey.log")
        self.settings = Settings(
            mongodb_url=f"mongodb://{hosts}/?replicaSet=rs0",
            mongodb_db="torture",
            redis_url=self.valkey.url,
            jwt_secret=SECRET,
            langfuse_enabled=False,
            max_attempts=50,
            offline_tokens_per_second=tokens_per_second,
        )
        self.ports = [free_port(), free_port()]
        self.apis = [self._api(n, plant) for n in range(2)]
        self.pools = [
            self._child(f"worker{n}", ["-m", "tailrace_worker", "-n", str(workers)], self.settings, plant)
            for n in range(2)
        ]
        self.token = mint(self.settings, user="alice")

    def _api(self, n: int, plant: str | None) -> Child:
        settings = msgspec.structs.replace(self.settings, port=self.ports[n])
        return self._child(f"api{n}", ["-m", "tailrace.cli", "api"], settings, plant)

    def _child(self, name: str, args: list[str], settings: Settings, plant: str | None) -> Child:
        environ = child_environ(settings)
        if plant is not None:
            environ["PYTHONPATH"] = os.pathsep.join((str(PLANTS), environ.get("PYTHONPATH", "")))
            environ["TORTURE_PLANT"] = plant
        return Child(name, [sys.executable, *args], log=self.place / f"{name}.log", environ=environ)

    @property
    def children(self) -> dict[str, Child]:
        """All processes that the harness started, by name."""
        mongods = {f"mongod{n}": member.child for n, member in enumerate(self.mongods)}
        rest = [*self.apis, *self.pools]
        return {**mongods, "valkey": self.valkey.child, **{child.name: child for child in rest}}

    def url(self, n: int) -> str:
        """The address of an API, without a slash at the end."""
        return f"http://127.0.0.1:{self.ports[n % 2]}"

    async def start(self) -> None:
        """Start everything and wait until it serves."""
        for n in range(3):
            self.start_mongod(n)
        self.start_valkey()
        await self._until(self._initiated, "the replica set")
        await self.primary()
        async with connect(self.settings) as database:
            await ensure_indexes(database)
        for child in (*self.apis, *self.pools):
            child.start()
        for n in range(2):
            await self.ready(n)

    def start_mongod(self, n: int) -> None:
        """Start a member on the port and the data that it had."""
        member = self.mongods[n]
        (self.place / f"mongo{n}").mkdir(exist_ok=True)
        member.child.argv = [*member.argv(), "--setParameter=diagnosticDataCollectionEnabled=false"]
        member.child.start()

    def start_valkey(self) -> None:
        """Start Valkey on the port and the data that it had."""
        (self.place / "valkey").mkdir(exist_ok=True)
        self.valkey.child.argv = self.valkey.argv()
        self.valkey.child.start()

    async def ready(self, n: int) -> None:
        """Wait until an API says that it is ready."""

        async def look() -> bool:
            async with httpx.AsyncClient(trust_env=False, timeout=5) as client:
                with suppress(httpx.TransportError):
                    return (await client.get(f"{self.url(n)}/readyz")).status_code == 200
            return False

        await self._until(look, f"api{n}")

    async def primary(self) -> int:
        """The number of the member that is primary, when there is one."""
        found: list[int] = []

        async def look() -> bool:
            found[:] = await asyncio.to_thread(self._primaries)
            return len(found) == 1

        await self._until(look, "a primary")
        return found[0]

    async def settled(self) -> None:
        """Wait until all is healed: three members, of which one is primary, and both APIs ready."""

        async def look() -> bool:
            states = await asyncio.to_thread(self._states)
            return sorted(states) == [1, 2, 2]

        await self._until(look, "three members")
        for n in range(2):
            await self.ready(n)

    async def command(self, n: int, *args: Any, **more: Any) -> dict[str, Any]:
        """Run an admin command on one member."""
        return await asyncio.to_thread(self._command, n, *args, **more)

    def _command(self, n: int, *args: Any, **more: Any) -> dict[str, Any]:
        client: MongoClient[dict[str, Any]] = MongoClient(
            f"127.0.0.1:{self.mongods[n].port}",
            directConnection=True,
            serverSelectionTimeoutMS=800,
            socketTimeoutMS=15_000 if args[0] != "hello" else 800,
        )
        with client:
            return dict(client.admin.command(*args, **more))

    def _primaries(self) -> list[int]:
        found = []
        for n in range(3):
            with suppress(PyMongoError):
                if self._command(n, "hello").get("isWritablePrimary"):
                    found.append(n)
        return found

    def _states(self) -> list[int]:
        for n in self._primaries():
            with suppress(PyMongoError):
                return [member["state"] for member in self._command(n, "replSetGetStatus")["members"]]
        return []

    async def _initiated(self) -> bool:
        members = [{"_id": n, "host": f"127.0.0.1:{member.port}"} for n, member in enumerate(self.mongods)]
        timing = {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": HEARTBEAT_MS}
        with suppress(PyMongoError):
            config = {"_id": "rs0", "members": members, "settings": timing}
            await self.command(0, "replSetInitiate", config)
            return True
        return False

    async def _until(self, look: Callable[[], Awaitable[bool]], what: str) -> None:
        deadline = time.monotonic() + START_SECONDS
        while not await look():
            if time.monotonic() > deadline:
                raise RuntimeError(f"{what}: not there after {START_SECONDS:.0f} s; logs in {self.place}")
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        """End everything, by SIGKILL: nothing is looked at any more."""
        for child in self.children.values():
            child.kill()

    def horses(self) -> list[int]:
        """The processes that perform runs: the pools' grandchildren."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError, ValueError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if fields[0] != "Z":
                        parents[int(entry.name)] = int(fields[1])
        pools = {pool.pid for pool in self.pools if pool.running}
        return sorted(pid for pid, parent in parents.items() if parents.get(parent) in pools)
