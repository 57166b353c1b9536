"""The keeper: a thread that renews the run's lease, whatever the agent does with its own.

An agent's tool may block the event loop for as long as it likes, and the run is still this process's. The
keeper goes on, and so it is also what notices an agent that is at work long after it should have ended.
"""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress

from tailrace.leases import BEAT_SECONDS, CANCEL_GRACE_SECONDS, Leases
from tailrace.mongo import connect, end_task
from tailrace.runs import Run
from tailrace.settings import Settings
from tailrace_worker.hold import Hold

__all__ = ["keeping"]

log = logging.getLogger(__name__)


@asynccontextmanager
async def keeping(
    settings: Settings, run: Run, hold: Hold, *, give_up: Callable[[], None] | None = None
) -> AsyncIterator[None]:
    """Renew the lease of `run` while the body runs, and tell `hold`, in the body's loop, what became of it.

    `give_up` is called in the keeper's thread when the agent is still at work `CANCEL_GRACE_SECONDS` after it
    was told to end, or after its time was over.
    """
    keeper = _Keeper(settings, run, hold, give_up)
    keeper.thread.start()
    try:
        yield
    finally:
        await keeper.end()


class _Keeper:
    def __init__(self, settings: Settings, run: Run, hold: Hold, give_up: Callable[[], None] | None) -> None:
        self._settings = settings
        self._run = run
        self._hold = hold
        self._give_up = give_up
        self._agents_loop = asyncio.get_running_loop()
        self._told: float | None = None  # time.monotonic() when its end was first known to be wanted
        self._ending = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None  # the thread's, once it could be made
        # The horse ends without waiting for it.
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    async def end(self) -> None:
        """Return when the thread has ended."""
        self._ending.set()
        if self._loop is not None:
            with suppress(RuntimeError):  # it is closed: the thread has seen for itself
                self._loop.call_soon_threadsafe(self._ended.set)
        await asyncio.to_thread(self.thread.join)

    def _keep(self) -> None:
        while not self._ending.is_set():
            try:
                with asyncio.Runner() as runner:
                    runner.run(self._until_ended())
            except OSError as error:  # the process may open no more files, of which a loop needs three
                self._not_renewed(error)
                self._give_up_if_overdue()
                self._ending.wait(BEAT_SECONDS)

    async def _until_ended(self) -> None:
        self._ended = asyncio.Event()
        self._loop = asyncio.get_running_loop()
        if self._ending.is_set():  # only now would `end` wake this loop
            return
        beating = asyncio.create_task(self._beat())
        watching = asyncio.create_task(self._watch())
        await self._ended.wait()
        await end_task(watching)
        await end_task(beating)

    async def _beat(self) -> None:
        # A short run does not see the first beat, and needs no client of this thread's loop.
        await asyncio.sleep(BEAT_SECONDS)
        async with connect(self._settings) as database:
            leases = Leases(database)
            while True:
                try:
                    self._tell(await leases.renew(self._run))
                except Exception as error:
                    self._not_renewed(error)
                await asyncio.sleep(BEAT_SECONDS)

    def _not_renewed(self, error: Exception) -> None:
        # The run goes on. Its lease may run out meanwhile; then the fence decides.
        log.warning("the lease was not renewed", extra={"action": "lease", "error": str(error)[:200]})

    def _tell(self, found: Run | None) -> None:
        if self._told is None and (found is None or found.cancel_requested):
            self._told = time.monotonic()
        self._agents_loop.call_soon_threadsafe(self._hold.hear, found)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
            self._give_up_if_overdue()

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
