"""The spare: the process for the next run, forked and connected before there is a job for it."""

from __future__ import annotations

import logging
import os
import select
import signal
import time
from collections.abc import Callable
from typing import NoReturn

import msgspec

__all__ = ["Order", "Spares"]

log = logging.getLogger(__name__)

# Shorter than any firewall takes to forget a silent connection. A fork a minute costs next to nothing.
MAX_SECONDS = 60.0


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """The job that a spare is given, by where RQ keeps it."""

    job_id: str
    execution_id: str


class Spares:
    """Keeps one spare, of this process.

    `perform` is called in each, with the end of a pipe on which its order will come; when the worker is gone,
    the pipe is closed and says nothing.
    """

    def __init__(self, perform: Callable[[int], NoReturn]) -> None:
        self._perform = perform
        self._spare: _Spare | None = None

    def keep(self) -> None:
        """Have a spare that lives and is not too old."""
        if self._spare is not None and not self._spare.fit:
            self._spare.dismiss()
            self._spare = None
        if self._spare is None:
            self._spare = _Spare(self._perform)

    def give(self, order: Order) -> int:
        """Have a job performed, by a new process if there is no spare that lives; the process's id."""
        spare, self._spare = self._spare, None
        if spare is not None and not spare.give(order):
            spare.dismiss()
            spare = None
        if spare is None:
            spare = _Spare(self._perform)
            spare.give(order)
        return spare.pid


class _Spare:
    """A spare as its worker sees it. Making one forks this process."""

    def __init__(self, perform: Callable[[int], NoReturn]) -> None:
        reading, writing = os.pipe()
        self._born = time.monotonic()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                os.close(writing)
                perform(reading)
            except BaseException:
                log.exception("a horse cannot begin", extra={"action": "fork"})
            finally:
                os._exit(1)
        os.close(reading)
        self._pipe = os.fdopen(writing, "wb", buffering=0)

    @property
    def fit(self) -> bool:
        """Whether it lives and is not too old."""
        looking = select.poll()
        looking.register(self._pipe, 0)  # that nobody has its other end any more is told unasked
        return time.monotonic() - self._born < MAX_SECONDS and not looking.poll(0)

    def give(self, order: Order) -> bool:
        """Let it perform a job, a horse from now on; False when it is dead."""
        with self._pipe:
            try:
                self._pipe.write(msgspec.json.encode(order))
            except BrokenPipeError:
                return False
        return True

    def dismiss(self) -> None:
        """End it; it has nothing to finish."""
        self._pipe.close()
        os.kill(self.pid, signal.SIGKILL)  # it is not reaped yet, so the id is its own
        os.waitpid(self.pid, 0)
