"""A system under test: how its server is started, and how a stream is asked for."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import msgspec
from ops.bench.deployment import Place, owner
from ops.bench.peer import python_environ

from tailrace.child import Child, free_port
from tailrace.dev import child_environ
from tailrace.tokens import mint

__all__ = ["FLOOR", "PER_CONNECTION", "POLL", "PUBSUB", "SYSTEMS", "TAILRACE", "Server", "System"]

_START_SECONDS = 60.0


class System(msgspec.Struct, frozen=True, kw_only=True):
    """One of the designs that are compared."""

    name: str
    label: str  # for people
    reads: str = "log"  # where its events come from: the log, or `redis`
    replays: bool = True  # whether it can show what was written before a reader came

    @contextmanager
    def server(self, place: Place) -> Iterator[Server]:
        """Its server's process, ready to be read from; ended on exit. Raises `RuntimeError`."""
        port = free_port()
        settings = place.settings(port=port)
        if self is TAILRACE:
            argv, environ = ["tailrace.cli", "api"], child_environ(settings, python_environ())
        else:
            argv = [f"ops.bench.systems.{self.name}", str(port), *place_arguments(place)]
            environ = python_environ()
        log = place.directory / f"{self.name}.log"
        child = Child(self.name, [sys.executable, "-m", *argv], log=log, environ=environ)
        child.start()
        try:
            _wait(child, port, "/readyz" if self is TAILRACE else None)
            yield Server(self, place, child, port)
        finally:
            child.stop(patience=3)


class Server:
    """A system's running server."""

    def __init__(self, system: System, place: Place, child: Child, port: int) -> None:
        self.system = system
        self.port = port
        self._place = place
        self._child = child

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._child.pid is not None
        return self._child.pid

    def streams(self, *, newest: bool = False) -> list[bytes]:
        """A request for each session's stream, from its beginning or from now on."""
        if self.system is not TAILRACE:
            return [_get(f"/stream/{session}") for session in self._place.sessions]
        since = "&since_timestamp=99999999999" if newest else ""
        path = "/api/apps/{}/agent/stream-continue?follow=session" + since
        return self._each(path)

    def replays(self) -> list[bytes]:
        """A request for each session's log from its beginning to its end, which ends the stream."""
        if self.system is not TAILRACE:
            return [_get(f"/replay/{session}") for session in self._place.sessions]
        return self._each("/api/apps/{}/agent/stream-continue?follow=none")

    def _each(self, path: str) -> list[bytes]:
        settings = self._place.settings()
        return [
            _get(path.format(session), token=mint(settings, user=owner(session)))
            for session in self._place.sessions
        ]


def place_arguments(place: Place) -> list[str]:
    """What a server of this package is told about its place, behind its port."""
    return [place.mongodb_url, place.database, place.redis_url]


def _get(path: str, *, token: str | None = None) -> bytes:
    authorization = f"Authorization: Bearer {token}\r\n" if token else ""
    return (
        f"GET {path} HTTP/1.1\r\nHost: bench\r\nAccept: text/event-stream\r\n{authorization}"
        "Connection: close\r\n\r\n"
    ).encode()


def _wait(child: Child, port: int, path: str | None) -> None:
    deadline = time.monotonic() + _START_SECONDS
    while child.running and time.monotonic() < deadline:
        if path is None:
            with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
                return
        else:
            with suppress(httpx.TransportError):
                if httpx.get(f"http://127.0.0.1:{port}{path}").is_success:
                    return
        time.sleep(0.05)
    raise RuntimeError(f"{child.name} does not start. {child.obituary()}")


TAILRACE = System(name="tailrace", label="Tailrace")
FLOOR = System(name="floor", label="floor: a change stream, raw sockets")
PER_CONNECTION = System(name="per_connection", label="a change stream per connection")
PUBSUB = System(name="pubsub", label="Redis pub/sub, sse-starlette", reads="redis", replays=False)
POLL = System(name="poll", label="500 ms poll, Motor")
SYSTEMS = (TAILRACE, FLOOR, PER_CONNECTION, PUBSUB, POLL)
