"""The deployment that is tortured: three mongod, Valkey, two APIs, two worker pools, all real processes."""

from __future__ import annotations

import asyncio
import os
import ssl
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
from redis import Redis
from tests.faults.network import MEMBERS, Network

from tailrace.child import Child, free_port
from tailrace.dev import child_environ
from tailrace.embedded import Mongod, Valkey
from tailrace.mongo import connect, ensure_indexes
from tailrace.settings import Settings
from tailrace.tokens import mint

__all__ = ["Topology", "http_client", "parent_of", "plants"]

ELECTION_MS, HEARTBEAT_MS = 2_000, 500
START_SECONDS = 90.0
SECRET = "only-for-the-tests-of-this-repository"
INSIDE = Path(__file__).parent / "inside"
ROOT = Path(__file__).parents[2]
_NO_CERTIFICATES = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


def http_client(*, timeout: float | httpx.Timeout) -> httpx.AsyncClient:
    """A client for the APIs. For each one httpx would read all certificates: 30 ms that the readers wait."""
    return httpx.AsyncClient(trust_env=False, timeout=timeout, verify=_NO_CERTIFICATES)


def plants() -> list[str]:
    """The names for `--plant`: a module `inside/plant_NAME.py` each; its import breaks the product."""
    return sorted(found.stem[6:].replace("_", "-") for found in INSIDE.glob("plant_*.py"))


class Topology:
    """Every process by name. Started from the main thread: whatever ends the harness ends them."""

    def __init__(
        self,
        place: Path,
        *,
        tokens_per_second: float,
        workers: int,
        skew: float = 0.0,  # seconds that the clock of the second worker pool is off
    ) -> None:
        self.place = place
        self._plant: str | None = None
        self._workers = workers
        self._skew = skew
        self.down: set[str] = set()  # what a fault has ended, and will start again
        self.mongods = [
            Mongod(place / f"mongo{n}", log=place / f"mongo{n}.log", test_commands=True, cache_gb=0.25)
            for n in range(3)
        ]
        for n, member in enumerate(self.mongods):
            member.child.name = f"mongod{n}"  # as in `children` and `down`
        self.valkey = Valkey(place / "valkey", log=place / "valkey.log")
        servers = {member.child.name: member.port for member in self.mongods}
        self.network = Network({**servers, "valkey": self.valkey.port}, log=place / "proxies.log")
        self.hosts = [f"127.0.0.1:{self.network.ports[name]}" for name in MEMBERS]
        self.settings = Settings(
            mongodb_url=self.mongodb_url("torture"),
            mongodb_db="torture",
            redis_url=f"redis://127.0.0.1:{self.network.ports['valkey']}/0",
            jwt_secret=SECRET,
            langfuse_enabled=False,
            # Asked at every run and stream, also while Redis is away, and never reached: all is one user's.
            max_runs_per_minute=100_000,
            max_concurrent_runs=1_000,
            max_concurrent_streams=100_000,
            max_attempts=50,
            agents="torture=tests.faults.inside.agent:build",
            offline_tokens_per_second=tokens_per_second,
        )
        self.ports = [free_port(), free_port()]
        self.apis = [self._api(n) for n in range(2)]
        self.pools = [self._pool(n) for n in range(2)]
        self.token = mint(self.settings, user="alice")

    def _api(self, n: int) -> Child:
        return self._child(f"api{n}", ["-m", "tailrace.cli", "api"], port=self.ports[n])

    def _pool(self, n: int) -> Child:
        arguments = ["-m", "tailrace_worker", "-n", str(self._workers)]
        return self._child(f"worker{n}", arguments, skew=self._skew * n)

    def mongodb_url(self, name: str) -> str:
        """The replica set behind its proxies, which know the connections by `name`."""
        return f"mongodb://{','.join(self.hosts)}/?replicaSet=rs0&appName={name}"

    def _child(self, name: str, args: list[str], *, skew: float = 0.0, **changes: Any) -> Child:
        own = {"mongodb_url": self.mongodb_url(name), **changes}
        environ = child_environ(msgspec.structs.replace(self.settings, **own))
        places = (str(INSIDE), str(ROOT), environ.get("PYTHONPATH", ""))
        environ["PYTHONPATH"] = os.pathsep.join(filter(None, places))
        inside = ["skew", "ledger"] if skew else ["ledger"]
        if self._plant:
            inside.append(f"plant_{self._plant.replace('-', '_')}")
        environ["TORTURE_INSIDE"] = ",".join(inside)
        environ["TORTURE_SKEW"] = str(skew)
        environ["TORTURE_LEDGER"] = str(self.place / f"{name}.ledger")
        return Child(name, [sys.executable, *args], log=self.place / f"{name}.log", environ=environ)

    @property
    def children(self) -> dict[str, Child]:
        """All processes that the harness started, by name."""
        mongods = {f"mongod{n}": member.child for n, member in enumerate(self.mongods)}
        rest = [*self.apis, *self.pools]
        servers = {**mongods, "valkey": self.valkey.child, "proxies": self.network.child}
        return {**servers, **{child.name: child for child in rest}}

    def url(self, n: int) -> str:
        """The address of an API, without a slash at the end."""
        return f"http://127.0.0.1:{self.ports[n % 2]}"

    async def start(self) -> None:
        """Start what the product needs, and wait until it serves."""
        for n in range(3):
            self.start_mongod(n)
        self.start_valkey()
        await self.network.start()
        await self._until(self._initiated, "the replica set")
        await self.primary()

    async def serve(self, plant: str | None = None) -> None:
        """Start the product, broken by `plant`, with nothing stored, and wait until it serves."""
        await self._kill_product()
        self._plant = plant
        self.apis, self.pools = [self._api(n) for n in range(2)], [self._pool(n) for n in range(2)]
        for ledger in self.place.glob("*.ledger"):
            ledger.unlink()
        with Redis.from_url(self.settings.redis_url) as redis:
            redis.flushall()
        async with connect(self.settings) as database:
            await database.client.drop_database(database.name)
            await ensure_indexes(database)
        for child in (*self.apis, *self.pools):
            child.start()
        for n in range(2):
            await self.ready(n)

    async def _kill_product(self) -> None:
        """Return when all its processes are gone: the horses end a moment after their pools."""
        horses = self.horses()
        for child in (*self.apis, *self.pools):
            child.kill()

        async def look() -> bool:
            return not any(map(_runs, horses))

        await self._until(look, "the end of the horses")

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

    async def ready(self, n: int, within: float = START_SECONDS) -> None:
        """Wait until an API says that it is ready. Raises `TimeoutError`."""

        async def look() -> bool:
            async with http_client(timeout=5) as client:
                with suppress(httpx.TransportError):
                    return (await client.get(f"{self.url(n)}/readyz")).status_code == 200
            return False

        await self._until(look, f"api{n}", within)

    async def primary(self) -> int:
        """The number of the member that is primary, when there is one."""
        found: list[int] = []

        async def look() -> bool:
            found[:] = await asyncio.to_thread(self._primaries)
            return len(found) == 1

        await self._until(look, "a primary")
        return found[0]

    async def replaced(self, n: int) -> None:
        """Wait until another member than `n` is primary; `n` may still believe that it is."""

        async def look() -> bool:
            return any(found != n for found in await asyncio.to_thread(self._primaries))

        await self._until(look, f"another primary than member {n}")

    async def settled(self, within: float = START_SECONDS) -> None:
        """Wait until all is healed: three members, of which one is primary, and both APIs ready.

        Raises `TimeoutError` with what is not.
        """

        async def look() -> bool:
            states = await asyncio.to_thread(self._states)
            return sorted(states) == [1, 2, 2]

        await self._until(look, "three members")
        for n in range(2):
            await self.ready(n, within)

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
        members = [{"_id": n, "host": host} for n, host in enumerate(self.hosts)]
        timing = {"electionTimeoutMillis": ELECTION_MS, "heartbeatIntervalMillis": HEARTBEAT_MS}
        with suppress(PyMongoError):
            config = {"_id": "rs0", "members": members, "settings": timing}
            await self.command(0, "replSetInitiate", config)
            return True
        return False

    async def _until(
        self, look: Callable[[], Awaitable[bool]], what: str, within: float = START_SECONDS
    ) -> None:
        deadline = time.monotonic() + within
        while not await look():
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not there after {within:.0f} s; logs in {self.place}")
            await asyncio.sleep(0.1)

    def stop(self) -> None:
        """End everything, by SIGKILL: nothing is looked at any more."""
        for child in self.children.values():
            child.kill()

    def horses(self) -> list[int]:
        """The processes that perform runs, and the spares: the pools' grandchildren."""
        parents: dict[int, int] = {}
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit():
                with suppress(OSError, ValueError):
                    fields = (entry / "stat").read_text().rpartition(")")[2].split()
                    if fields[0] != "Z":
                        parents[int(entry.name)] = int(fields[1])
        pools = {pool.pid for pool in self.pools if pool.running}
        return sorted(pid for pid, parent in parents.items() if parents.get(parent) in pools)


def parent_of(pid: int) -> int:
    """The parent of a process. Raises `OSError` when there is none of that id."""
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def _runs(pid: int) -> bool:
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False
