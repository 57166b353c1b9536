"""The keeper: a thread that renews the run's lease, whatever the agent does with its event loop.

It asks that loop, which has a client of MongoDB, to do it. An agent's tool may block the loop for as long as
it likes, and the run is still this process's: then the keeper does it alone. So it is also what notices an
agent that is at work long after it should have ended.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextlib import asynccontextmanager, suppress
from typing import Any

from tailrace.leases import BEAT_SECONDS, CANCEL_GRACE_SECONDS, Leases
from tailrace.mongo import connect, end_task
from tailrace.runs import Run
from tailrace.settings import Settings
from tailrace_worker.hold import Hold

__all__ = ["keeping"]

log = logging.getLogger(__name__)

TURN_SECONDS = 0.5  # for a loop that is not blocked to show it
ALONE_SECONDS = 4.0  # for a renewal without the agent's loop, from connecting on


@asynccontextmanager
async def keeping(
    settings: Settings, run: Run, hold: Hold, leases: Leases, *, give_up: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Renew the lease of `run` while the body runs, and tell `hold`, in the body's loop, what became of it.

    `leases` is asked in the body's loop for as long as that turns. `give_up` is called in the keeper's thread
    when the agent is still at work `CANCEL_GRACE_SECONDS` after it was told to end, or its time was over.
    """
    keeper = _Keeper(settings, run, hold, leases, give_up)
    keeper.thread.start()
    try:
        yield
    finally:
        await keeper.end()


class _Keeper:
    def __init__(
        self, settings: Settings, run: Run, hold: Hold, leases: Leases, give_up: Callable[[], None] | None
    ) -> None:
        self._settings = settings
        self._run = run
        self._hold = hold
        self._leases = leases
        self._give_up = give_up
        self._agents_loop = asyncio.get_running_loop()
        self._asked: Future[Run | None] | None = None  # the agent's loop, which has not answered yet
        self._told: float | None = None  # time.monotonic() when its end was first known to be wanted
        self._ending: Future[None] = Future()
        self._ended = asyncio.Event()  # set in the agent's loop
        # The horse ends without waiting for it.
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    async def end(self) -> None:
        """Return when the thread has ended."""
        self._ending.set_result(None)
        # It says so itself: a thread that waits for it may not be had, where an agent's tools have them all.
        await self._ended.wait()
        self.thread.join()  # it has nothing more to do
        if self._asked is not None:
            self._asked.cancel()

    def _keep(self) -> None:
        try:
            self._beat_until_ending()
        finally:
            with suppress(RuntimeError):  # the loop is closed, for nobody waited
                self._agents_loop.call_soon_threadsafe(self._ended.set)

    def _beat_until_ending(self) -> None:
        # A short run does not see the first beat.
        while not wait([self._ending], BEAT_SECONDS).done:
            try:
                self._beat()
            except Exception as error:
                # The run goes on. Its lease may run out meanwhile; then the fence decides.
                words = {"action": "lease", "error": f"{type(error).__name__}: {error}"[:200]}
                log.warning("the lease was not renewed", extra=words)
            self._give_up_if_overdue()

    def _beat(self) -> None:
        if self._asked is None:
            asking = self._leases.renew(self._run)
            self._asked = asyncio.run_coroutine_threadsafe(asking, self._agents_loop)
        awaited: list[Future[Any]] = [self._asked, self._ending]
        wait(awaited, BEAT_SECONDS, return_when=FIRST_COMPLETED)
        if self._asked.done():
            asked, self._asked = self._asked, None
            self._tell(asked.result())
        elif not (self._ending.done() or self._loop_turns()):
            with asyncio.Runner() as runner:  # OSError where the process may open no more files
                self._tell(runner.run(self._renewed_alone()))

    def _loop_turns(self) -> bool:
        """Whether the agent's loop is not blocked: then it is MongoDB that does not answer."""
        turned = threading.Event()
        self._agents_loop.call_soon_threadsafe(turned.set)
        return turned.wait(TURN_SECONDS)

    async def _renewed_alone(self) -> Run | None:
        async with connect(self._settings) as database:
            renewing = asyncio.create_task(Leases(database).renew(self._run))
            await asyncio.wait([renewing], timeout=ALONE_SECONDS)
            if renewing.done():
                return renewing.result()
            await end_task(renewing)
        raise TimeoutError("MongoDB does not answer")

    def _tell(self, found: Run | None) -> None:
        if self._told is None and (found is None or found.cancel_requested):
            self._told = time.monotonic()
        self._agents_loop.call_soon_threadsafe(self._hold.hear, found)

    def _give_up_if_overdue(self) -> None:
        if self._give_up is not None and self._overdue(time.monotonic()):
            log.error("the agent does not end", extra={"action": "give up", "run_id": self._run.run_id})
            self._give_up()

    def _overdue(self, now: float) -> bool:
        began = self._hold.began
        if began is None:
            return False
        deadline = began + self._settings.run_timeout_seconds
        if self._told is not None:
            deadline = min(deadline, max(self._told, began))
        return now > deadline + CANCEL_GRACE_SECONDS
