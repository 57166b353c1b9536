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
from contextlib import asynccontextmanager

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
        self._ready = threading.Event()
        # The horse ends without waiting for it.
        self.thread = threading.Thread(target=self._keep, name="lease", daemon=True)

    async def end(self) -> None:
        """Return when the thread has ended."""
        self._ready.wait()
        self._loop.call_soon_threadsafe(self._ended.set)
        await asyncio.to_thread(self.thread.join)

    def _keep(self) -> None:
        asyncio.run(self._until_ended())

    async def _until_ended(self) -> None:
        self._loop, self._ended = asyncio.get_running_loop(), asyncio.Event()
        self._ready.set()
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
                    # The lease may run out meanwhile; then the fence decides.
                    log.warning(
                        "the lease was not renewed", extra={"action": "lease", "error": str(error)[:200]}
                    )
                await asyncio.sleep(BEAT_SECONDS)

    def _tell(self, found: Run | None) -> None:
        if self._told is None and (found is None or found.cancel_requested):
            self._told = time.monotonic()
        self._agents_loop.call_soon_threadsafe(self._hold.hear, found)

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(BEAT_SECONDS)
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
