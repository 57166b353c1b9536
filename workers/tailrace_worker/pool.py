"""The pool: forks the workers from one preloaded process, and starts again those that end."""

from __future__ import annotations

import logging
import math
import os
import select
import signal
import sys
import time
import traceback
from collections.abc import Callable

import msgspec

from tailrace_worker.hold import HAND_OVER
from tailrace_worker.leaving import LEAVE_SECONDS
from tailrace_worker.worker import die_with_parent

__all__ = ["Pool"]

log = logging.getLogger(__name__)

_FIRST_PAUSE = 0.5  # seconds before a worker is started again; doubled each time it ends soon
_LONGEST_PAUSE = 15.0
_LONG_LIFE = 30.0  # seconds after which a worker's end says nothing about its next life

_ECHO_SECONDS = 1.0  # a terminal, and whoever passes signals on, may send the same one twice

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class _Place(msgspec.Struct, kw_only=True):
    """One worker's place: its process now, or when the next is due."""

    pid: int | None = None
    started: float = 0.0  # monotonic
    due: float = 0.0  # monotonic
    pause: float = _FIRST_PAUSE


class Pool:
    """Keeps `count` processes alive, each running `work` and exiting with what it returns.

    When they shall end, their runs have `handover_seconds` to finish. `beside` is called whenever a process
    has ended, for one that is none of the workers; it may return when to call it again (`time.monotonic()`).
    """

    def __init__(
        self,
        work: Callable[[], int],
        *,
        count: int,
        handover_seconds: float,
        beside: Callable[[], float | None] = lambda: None,
    ) -> None:
        self._work = work
        self._beside = beside
        self._handover_seconds = handover_seconds
        self._places = [_Place() for _ in range(count)]
        self._asked = 0.0  # monotonic, when it was first asked to end
        self._kill_at: float | None = None  # monotonic; None until it was asked to end

    def run(self) -> int:
        """Work until asked to end by a signal; then each worker finishes its run, or hands it over.

        A second signal has the runs handed over at once. Returns within `handover_seconds` and
        `LEAVE_SECONDS` of the first, whatever the workers do.
        """
        self._pipe = _pipe()
        signal.set_wakeup_fd(self._pipe[1], warn_on_full_buffer=False)
        for number in (*_STOP, signal.SIGCHLD):
            signal.signal(number, _wake)
        while not self._stopping or self._alive():
            self._reap()
            self._beside_due = self._beside()
            if not self._stopping:
                self._start_due()
            if self._alive() or not self._stopping:
                self._wait()
        return 0

    @property
    def _stopping(self) -> bool:
        return self._kill_at is not None

    def _alive(self) -> list[_Place]:
        return [place for place in self._places if place.pid is not None]

    def _start_due(self) -> None:
        for place in self._places:
            if place.pid is None and place.due <= time.monotonic():
                place.pid = self._fork()
                place.started = time.monotonic()

    def _fork(self) -> int:
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        # Blocked around the fork: a wish to end must not meet the child while it has this process's handlers.
        before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
        pid = os.fork()
        if pid == 0:
            self._be_worker(parent, before)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return pid

    def _be_worker(self, parent: int, mask: set[int | signal.Signals]) -> None:
        code = 1
        try:
            signal.set_wakeup_fd(-1)
            for number in (*_STOP, signal.SIGCHLD):
                signal.signal(number, signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, mask)
            for end in self._pipe:
                os.close(end)
            die_with_parent(signal.SIGTERM, parent)
            code = self._work()
        except Exception as error:
            log.error("the worker cannot go on: %s: %s", type(error).__name__, error)
        except BaseException as error:
            if not isinstance(error, SystemExit):
                traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # the parent's exit handlers are not this process's to run

    def _reap(self) -> None:
        for place in self._alive():
            pid, status = os.waitpid(place.pid or 0, os.WNOHANG)
            if pid == 0:
                continue
            place.pid = None
            if not self._stopping:
                self._plan_next(place, pid, os.waitstatus_to_exitcode(status))

    def _plan_next(self, place: _Place, pid: int, code: int) -> None:
        now = time.monotonic()
        if now - place.started >= _LONG_LIFE:
            place.pause = _FIRST_PAUSE
        place.due = now + place.pause
        log.warning("worker %d ended with status %d and starts again in %g s", pid, code, place.pause)
        place.pause = min(place.pause * 2, _LONGEST_PAUSE)

    def _wait(self) -> None:
        """Until a signal comes, or something is due."""
        dues = [place.due for place in self._places if place.pid is None and not self._stopping]
        dues += [self._beside_due] if self._beside_due is not None else []
        dues += [self._kill_at] if self._kill_at not in (None, math.inf) else []
        timeout = max(0.0, min(dues) - time.monotonic()) if dues else None
        ready, _, _ = select.select([self._pipe[0]], [], [], timeout)
        if ready and any(number in _STOP for number in os.read(self._pipe[0], 4096)):
            self._stop(time.monotonic())
        if self._kill_at is not None and time.monotonic() >= self._kill_at:
            log.error("workers that would not leave are killed")
            self._tell(signal.SIGKILL)  # their horses die with them
            self._kill_at = math.inf

    def _stop(self, now: float) -> None:
        if self._kill_at is None:
            self._asked = now
            self._kill_at = now + self._handover_seconds + LEAVE_SECONDS
            self._tell(signal.SIGTERM)
        elif now - self._asked > _ECHO_SECONDS:
            self._kill_at = min(self._kill_at, now + LEAVE_SECONDS)
            self._tell(HAND_OVER)

    def _tell(self, number: signal.Signals) -> None:
        for place in self._alive():
            if place.pid is not None:
                os.kill(place.pid, number)


def _wake(number: int, frame: object) -> None:
    """A handler, so that the signal reaches the wake-up pipe and does nothing else."""


def _pipe() -> tuple[int, int]:
    ends = os.pipe()
    for end in ends:
        os.set_blocking(end, False)
    return ends
