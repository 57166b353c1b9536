"""A real API process, a real worker process, and a client that writes down what it is sent."""

from __future__ import annotations

import asyncio
import json
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import httpx
import msgspec
from redis import Redis
from rq import Queue, Worker

from tailrace.child import Child, free_port
from tailrace.dev import child_environ
from tailrace.settings import Settings
from tailrace.tokens import mint

__all__ = ["Frame", "Reader", "Stack", "eventually", "seen", "until"]

T = TypeVar("T")


def eventually(condition: Callable[[], T], timeout: float = 30.0) -> T:
    """The first true value of `condition()`; fail after `timeout` seconds."""
    deadline = time.monotonic() + timeout
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {timeout:.0f} s: {condition}"
        time.sleep(0.02)
    return value


async def until(condition: Callable[[], bool], within: float = 60.0) -> None:
    """Return when `condition()` is true; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while not condition():  # noqa: ASYNC110 - what is waited for is in other processes
            await asyncio.sleep(0.01)


async def seen(look: Callable[[], Awaitable[T]], within: float = 60.0) -> T:
    """The first true value that `look()` gives; fail after `within` seconds."""
    async with asyncio.timeout(within):
        while not (value := await look()):  # noqa: ASYNC110 - what is waited for is in other processes
            await asyncio.sleep(0.05)
    return value


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One SSE frame, as it came."""

    event: str
    data: str
    id: str | None = None
    at: float = 0.0  # time.monotonic() of its arrival

    @property
    def json(self) -> dict[str, Any]:
        """The data as an object."""
        return dict(json.loads(self.data))


class Reader:
    """Reads a session's stream and writes every frame down, over all its connections."""

    def __init__(self, stack: Stack, session_id: str, *, user: str = "alice", **params: str) -> None:
        self.frames: list[Frame] = []
        self.comments = 0
        self.statuses: list[int] = []
        self._stack = stack
        self._user = user
        self._params = params
        self._path = f"/api/apps/{session_id}/agent"

    @property
    def events(self) -> list[Frame]:
        """The frames that are stored events."""
        return [frame for frame in self.frames if frame.id is not None]

    @property
    def seqs(self) -> list[int]:
        """The `seq` of each event, in the order of arrival."""
        return [int((frame.id or "").rpartition(":")[2]) for frame in self.events]

    @property
    def last_event_id(self) -> str | None:
        """Where to go on from."""
        return self.events[-1].id if self.events else None

    @property
    def text(self) -> str:
        """What the deltas say, all runs together."""
        return "".join(frame.json["delta"] for frame in self.frames if frame.event == "delta")

    async def generate(self, prompt: str, **body: Any) -> None:
        """Post a prompt and read its stream to the end."""
        await self._read("POST", f"{self._path}/generate", json={"prompt": prompt, **body})

    async def read(self) -> None:
        """Read on from the last event, once, until the server ends the stream."""
        headers = {"Last-Event-ID": self.last_event_id} if self.last_event_id else {}
        await self._read("GET", f"{self._path}/stream-continue", headers=headers, params=self._params)

    async def read_through(self, done: Callable[[], bool], within: float = 60.0) -> None:
        """Read, and connect again whenever the connection or the server is lost, until `done()`."""
        deadline = time.monotonic() + within
        while not done():
            assert time.monotonic() < deadline, f"not done within {within:.0f} s; {len(self.frames)} frames"
            try:
                await self.read()
            except httpx.TransportError:
                await asyncio.sleep(0.05)

    async def _read(self, method: str, path: str, **request: Any) -> None:
        async with (
            self._stack.client(user=self._user) as client,
            client.stream(method, path, **request) as answer,
        ):
            self.statuses.append(answer.status_code)
            if answer.is_error:
                await answer.aread()
                raise AssertionError(f"{method} {path}: {answer.status_code} {answer.text}")
            async for frame in self._frames(answer):
                self.frames.append(frame)

    async def _frames(self, answer: httpx.Response) -> AsyncIterator[Frame]:
        fields: dict[str, str] = {}
        async for line in _lines(answer):
            if line.startswith(":"):
                self.comments += 1
            elif line:
                name, _, value = line.partition(": ")
                fields[name] = value
            elif "event" in fields:
                yield Frame(
                    event=fields["event"], data=fields["data"], id=fields.get("id"), at=time.monotonic()
                )
                fields = {}


async def _lines(answer: httpx.Response) -> AsyncIterator[str]:
    # Not aiter_lines: it also ends a line at U+2028 and the like, which SSE does not.
    rest = ""
    async for chunk in answer.aiter_text():
        *lines, rest = (rest + chunk).split("\n")
        for line in lines:
            yield line


class Stack:
    """The processes of one deployment, on the settings' MongoDB and Valkey; ended on exit.

    The ends of the logs are printed, which pytest shows beside a test that failed.
    """

    def __init__(self, settings: Settings, *, workers: int = 1) -> None:
        self.settings = msgspec.structs.replace(settings, port=free_port())
        self._directory = tempfile.TemporaryDirectory(prefix="tailrace-stack-")
        place = Path(self._directory.name)
        environ = child_environ(self.settings)
        self.api = Child(
            "api", [sys.executable, "-m", "tailrace.cli", "api"], log=place / "api.log", environ=environ
        )
        self.worker = Child(
            "worker",
            [sys.executable, "-m", "tailrace_worker", "-n", str(workers)],
            log=place / "worker.log",
            environ=environ,
        )

    @property
    def url(self) -> str:
        """Where the API is, without a slash at the end."""
        return f"http://127.0.0.1:{self.settings.port}"

    def token(self, user: str = "alice") -> str:
        """A bearer token of `user`."""
        return mint(self.settings, user=user)

    @asynccontextmanager
    async def client(
        self, *, user: str = "alice", patience: float = 30.0
    ) -> AsyncIterator[httpx.AsyncClient]:
        """An HTTP client that speaks as `user`; it gives up after `patience` seconds of silence."""
        headers: Mapping[str, str] = {"Authorization": f"Bearer {self.token(user)}"}
        async with httpx.AsyncClient(
            base_url=self.url, headers=headers, timeout=patience, trust_env=False
        ) as client:
            yield client

    def reader(self, session_id: str, *, user: str = "alice", **params: str) -> Reader:
        """A reader of a session; `params` go to `stream-continue`."""
        return Reader(self, session_id, user=user, **params)

    def start_api(self) -> None:
        """Start the API, on the same port each time, and wait until it is ready."""
        self.api.start()
        self._until(self._ready, self.api)

    def kill_api(self) -> None:
        """Kill -9 the API."""
        self.api.kill()

    def start_worker(self) -> None:
        """Start the worker and wait until it takes jobs."""
        self.worker.start()
        self._until(self._registered, self.worker)

    def kill_worker(self) -> None:
        """Kill -9 the worker's parent process."""
        self.worker.kill()

    def __enter__(self) -> Self:
        try:
            self.worker.start()
            self.start_api()
            self._until(self._registered, self.worker)
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        for child in (self.api, self.worker):
            child.stop()
            print(f"--- the end of {child.log.name}", *child.tail(60), sep="\n")
        self._directory.cleanup()

    def _until(self, condition: Callable[[], bool], child: Child) -> None:
        def met() -> bool:
            assert child.running, child.obituary()
            return condition()

        try:
            eventually(met, timeout=60)
        except AssertionError as error:
            lines = "\n".join(child.tail(60))
            raise AssertionError(f"{child.name} is not ready: {error}\n{lines}") from error

    def _ready(self) -> bool:
        try:
            return httpx.get(f"{self.url}/readyz", timeout=10, trust_env=False).status_code == httpx.codes.OK
        except httpx.TransportError:
            return False

    def _registered(self) -> bool:
        with Redis.from_url(self.settings.redis_url) as redis:
            queue = Queue(self.settings.queue, connection=redis)
            return any(worker.pid is not None for worker in Worker.all(queue=queue))
