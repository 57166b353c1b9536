"""Groundwork: an event loop and a client of MongoDB, which every run needs, laid before the run is known."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from pymongo.errors import PyMongoError

from tailrace.eventlog import EventLog
from tailrace.messages import Messages
from tailrace.mongo import Database, connect, end_task
from tailrace.settings import Settings, read_env_file
from tailrace_worker.loop import new_loop
from tailrace_worker.redis_client import REDIS_AWAY, redis_client
from tailrace_worker.rehearsal import rehearse

__all__ = ["Groundwork", "groundwork", "lay"]

MAX_ORDER_BYTES = 4096  # a pipe takes so much in one piece

_laid: Groundwork | None = None


class Groundwork:
    """One process's, for one run."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._runner = asyncio.Runner(loop_factory=lambda: new_loop(settings))
        self._loop = self._runner.get_loop()
        self._exits = AsyncExitStack()
        self.database: Database = self._loop.run_until_complete(
            self._exits.enter_async_context(connect(settings, polling=True))
        )
        self.redis = self._loop.run_until_complete(self._exits.enter_async_context(redis_client(settings)))

    def wait(self, pipe: int) -> bytes:
        """Connect, and rehearse, until something is said on `pipe`: that, or nothing when it is closed.

        The loop runs meanwhile, so the client follows the primary wherever it goes.
        """
        said = asyncio.Event()
        preparing = self._loop.create_task(self._prepare(said), name="prepare")
        self._exits.push_async_callback(end_task, preparing)
        self._loop.add_reader(pipe, said.set)
        self._loop.run_until_complete(said.wait())
        self._loop.remove_reader(pipe)
        return os.read(pipe, MAX_ORDER_BYTES)

    async def _prepare(self, said: asyncio.Event) -> None:
        with suppress(PyMongoError):  # it is the run that must wait for MongoDB, and it may never come
            # What a run looks at first, of a session that is not there; at once, for it uses two connections.
            event_log = EventLog(self.database, retention_seconds=0)
            await asyncio.gather(event_log.end(""), Messages(self.database).last("", 1))
        with suppress(*REDIS_AWAY):
            # A connection to hear a cancel on, and one to tell how far the run has come.
            await asyncio.gather(self.redis.ping(), self.redis.ping())
        if not said.is_set():
            # Once more: a forked process copies each page of memory that it first counts a reference on.
            await rehearse("Hello")

    def run(self, work: Coroutine[Any, Any, None]) -> None:
        """Do `work`, to its end."""
        task = self._loop.create_task(work)
        while not task.done():
            try:
                self._loop.run_until_complete(task)
            except SystemExit:
                # A tool's `sys.exit()`: asyncio stops the loop for it, though the task that awaits the tool
                # gets it as well. Go on, so that the run is told its end.
                continue
        task.result()

    def close(self) -> None:
        """Close the client, and the loop."""
        try:
            self._loop.run_until_complete(self._exits.aclose())
        finally:
            self._runner.close()


def lay(settings: Settings) -> Groundwork:
    """That of this process from now on, to be found by `groundwork`."""
    global _laid  # noqa: PLW0603 - RQ calls a run's function by name and can hand it nothing
    _laid = Groundwork(settings)
    return _laid


@contextmanager
def groundwork() -> Iterator[Groundwork]:
    """What was laid in this process, or else now, by the environment's settings; closed on exit."""
    ground = _laid or Groundwork(Settings.from_env(read_env_file(Path(".env"), os.environ)))
    try:
        yield ground
    finally:
        ground.close()
