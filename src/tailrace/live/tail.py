"""The tail: the process's one change stream, filtered by the sessions that have a reader here.

When that set grows, a second stream is opened from where the first one is, and takes over: make before break,
so readers feel nothing. It starts by time and not by resume token: a token does not outlive the filter it was
made under (the server answers 280 for ever once the session that owns it has left the set, SERVER-107889).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from typing import Any

from bson import Timestamp
from pymongo.errors import PyMongoError

from tailrace.eventlog import Changes, EventLog
from tailrace.live.hub import Hub
from tailrace.metrics import TAIL_BROKEN, TAIL_OPENED
from tailrace.mongo import end_task, patiently

__all__ = ["Tail"]

log = logging.getLogger(__name__)

REOPEN_SECONDS = 0.05  # the shortest time between two filters; a burst of joins shares one
STUCK_SECONDS = 10.0  # without any answer from the change stream; an idle one answers every second


class Tail:
    """Follows the log for the hub until cancelled; whatever breaks it, readers are sent back to history."""

    def __init__(self, event_log: EventLog, hub: Hub) -> None:
        self._log = event_log
        self._hub = hub
        self._current: _Pump | None = None
        self._retired: set[_Pump] = set()  # were replaced, and wait for their last answer

    @property
    def position(self) -> Timestamp | None:
        """The cluster time up to which every covered event was published; None while no stream is open."""
        return self._current.position if self._current else None

    def status(self) -> str | None:
        """What is wrong with the change stream, in words; None when it is well."""
        if self._current is None:
            return "no change stream is open"
        silent = self.silence or 0.0
        return f"the change stream has not answered for {silent:.0f} s" if silent > STUCK_SECONDS else None

    @property
    def lag(self) -> float | None:
        """How old the newest event was when it came, at least; 0 if nothing came after it.

        Whole seconds, as a cluster time has, by this process's clock. None while no stream is open.
        """
        return None if self._current is None else self._current.lag

    @property
    def silence(self) -> float | None:
        """Seconds since the change stream answered, which it does every second; None while there is none."""
        return None if self._current is None else time.monotonic() - self._current.moved_at

    async def run(self) -> None:
        """Follow for ever. Run it as a task of its own: cancelling a read closes the change stream."""
        while True:
            try:
                await self._follow(await patiently(self._log.now))
            except PyMongoError as error:
                TAIL_BROKEN.add()
                log.warning("The change stream broke", extra={"action": "tail", "error": str(error)[:300]})
            except Exception:
                # A document that is no event, say: whoever put it there must not end everybody's streams.
                TAIL_BROKEN.add()
                log.exception("The change stream cannot be followed", extra={"action": "tail"})
            finally:
                self._current = None
                self._hub.lose()
            await asyncio.sleep(REOPEN_SECONDS)

    async def _follow(self, start_at: Timestamp) -> None:
        """Keep one pump running over the wanted sessions; raises what ends it."""
        pump = await self._open(start_at)
        try:
            while True:
                await pump.unless_broken(self._hub.changed.wait())
                self._hub.changed.clear()
                if self._hub.filter_is_wrong():
                    old, pump = pump, await self._open(pump.position, old=pump)
                    self._retire(old)
                    await asyncio.sleep(REOPEN_SECONDS)
        finally:
            await asyncio.gather(*(each.close() for each in (pump, *self._retired)))

    def _retire(self, pump: _Pump) -> None:
        self._retired.add(pump)
        pump.retire(then=lambda: self._retired.discard(pump))

    async def _open(self, start_at: Timestamp, old: _Pump | None = None) -> _Pump:
        pump = _Pump(self._log, self._hub, start_at)
        try:
            await pump.opened(beside=old)
        except BaseException:
            await pump.close()
            raise
        TAIL_OPENED.add()
        self._current = pump
        self._hub.cover(pump.sessions)
        return pump


class _Pump:
    """One change stream and the task that publishes what it returns."""

    def __init__(self, event_log: EventLog, hub: Hub, start_at: Timestamp) -> None:
        self.sessions = hub.sessions
        self.position = start_at
        self.moved_at = time.monotonic()
        self.lag = 0.0
        self._opened = asyncio.Event()
        self._over = False  # what still comes is another's to deliver
        self._task = asyncio.create_task(self._run(event_log, hub.publish), name="tail")

    async def opened(self, beside: _Pump | None) -> None:
        """Return when the stream is open; raises what kept it from opening, or what ended `beside`."""
        others = [beside._task] if beside else []
        await _unless_ended([self._task, *others], self._opened.wait())

    async def unless_broken(self, happening: Coroutine[Any, Any, object]) -> None:
        """Return when `happening` did; raises what ended the stream before."""
        await _unless_ended([self._task], happening)

    def retire(self, then: Callable[[], None]) -> None:
        """Publish nothing from now on; the stream ends with its next answer, within a second. Then `then`.

        To cut it off would cost the driver's connection: another would have to be made for the next stream.
        """
        self._over = True

        def ended(task: asyncio.Task[None]) -> None:
            if not task.cancelled():
                task.exception()  # whatever it was: nobody reads from it any more
            then()

        self._task.add_done_callback(ended)

    async def close(self) -> None:
        """Publish nothing from now on, and return when the stream has ended, at once."""
        self._over = True
        await end_task(self._task)

    async def _run(self, event_log: EventLog, publish: Callable[..., None]) -> None:
        async with event_log.watch(self.sessions, start_at=self.position) as changes:
            self._opened.set()
            while not self._over:
                await self._publish_next(changes, publish)

    async def _publish_next(self, changes: Changes, publish: Callable[..., None]) -> None:
        event = await changes.next()
        if self._over:
            return
        self.position = changes.position
        self.moved_at = time.monotonic()
        if event is None:
            self.lag = 0.0
            return
        self.lag = max(0.0, time.time() - self.position.time - 1)
        publish(event)
        # It goes out before the server is asked for more; and of what came with it, the driver hands on the
        # next without giving anybody a turn.
        await asyncio.sleep(0)


async def _unless_ended(pumps: list[asyncio.Task[None]], happening: Coroutine[Any, Any, object]) -> None:
    """Wait for `happening`; raises what one of the tasks, which should run for ever, ended with."""
    waiter = asyncio.ensure_future(happening)
    try:
        await asyncio.wait([*pumps, waiter], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiter.cancel()
    for pump in pumps:
        if pump.done():
            pump.result()
