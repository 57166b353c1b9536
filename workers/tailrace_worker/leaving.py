"""How a worker leaves: its run may go on for a while, then it is handed over, by force if need be."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from contextlib import suppress

from tailrace_worker.hold import HAND_OVER

__all__ = ["LEAVE_SECONDS", "Leaving"]

log = logging.getLogger(__name__)

_OBEY_SECONDS = 3.0  # for a horse to end after it was told to hand its run over; then it is killed
LEAVE_SECONDS = 8.0  # from the hand-over to the worker's end; then the pool kills it


class Leaving:
    """The state of a worker that may have to leave while its horse performs a run.

    Its timers are threads, for the worker's own waits for the horse.
    """

    def __init__(self, *, handover_seconds: float) -> None:
        self._handover_seconds = handover_seconds
        self._horse: int | None = None
        self.due = False  # whatever run goes on is to be handed over
        self.told = False  # the horse is told so: what it leaves is for another worker

    def begin(self) -> None:
        """The worker shall leave: the run has the set time from now on."""
        self._later(self._handover_seconds, self.hand_over)

    def hand_over(self) -> None:
        """The run has no time any more."""
        self.due = True
        self._tell()

    def watch(self, horse: int) -> None:
        """This process performs a run, until `forget`."""
        self._horse = horse
        if self.due:
            self._tell()

    def forget(self) -> None:
        """The horse has ended, and its id may be another's soon."""
        self._horse = None

    def _tell(self) -> None:
        if self._horse is None or self.told:
            return
        self.told = True
        with suppress(ProcessLookupError):
            os.kill(self._horse, HAND_OVER)
        self._later(_OBEY_SECONDS, self._kill)

    def _kill(self) -> None:
        if self._horse is not None:
            log.warning("a run that would not end is killed", extra={"action": "hand over"})
            with suppress(ProcessLookupError):
                os.killpg(self._horse, signal.SIGKILL)  # with what it started: a horse leads its group

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        timer = threading.Timer(seconds, action)
        timer.daemon = True
        timer.start()
