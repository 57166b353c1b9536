"""The supervisor: names a child that died, with the end of its log, and starts it again."""

from __future__ import annotations

import time
from collections.abc import Callable

import msgspec

from tailrace.child import Child
from tailrace.errors import TailraceError
from tailrace.signals import Signals

__all__ = ["Supervisor"]

_QUICK_SECONDS = 10.0  # a child that lived shorter than this did not really start
_QUICK_DEATHS = 6  # so many of them in a row, and nothing will help
_FIRST_DELAY_SECONDS = 0.5
_LONGEST_DELAY_SECONDS = 15.0


class _Watched(msgspec.Struct, kw_only=True):
    child: Child
    born: float  # time.monotonic()
    quick_deaths: int = 0  # in a row
    again_at: float | None = None  # time.monotonic(); None while it should be running


class Supervisor:
    """Keeps children running until this process is asked to end."""

    def __init__(self, signals: Signals, say: Callable[[str], None]) -> None:
        self._signals = signals
        self._say = say
        self._watched: list[_Watched] = []

    def add(self, child: Child) -> None:
        """Watch a child that has been started."""
        self._watched.append(_Watched(child=child, born=time.monotonic()))

    def watch(self) -> None:
        """Start again what dies.

        Raises `Asked` when this process is asked to end, `TailraceError` when a child cannot be kept running.
        """
        while True:
            now = time.monotonic()
            for watched in self._watched:
                self._look(watched, now)
            due = [watched.again_at for watched in self._watched if watched.again_at is not None]
            self._signals.pause(max(0.0, min(due) - now) if due else None)

    def _look(self, watched: _Watched, now: float) -> None:
        if watched.again_at is None:
            if not watched.child.running:
                self._died(watched, now)
        elif now >= watched.again_at:
            watched.again_at, watched.born = None, now
            watched.child.start()
            self._say(f"Started the {watched.child.name} again.")

    def _died(self, watched: _Watched, now: float) -> None:
        child = watched.child
        quick = now - watched.born < _QUICK_SECONDS
        watched.quick_deaths = watched.quick_deaths + 1 if quick else 0
        if watched.quick_deaths >= _QUICK_DEATHS:
            raise TailraceError(
                f"The {child.obituary()}\n"
                f"The {child.name} ended {_QUICK_DEATHS} times right after its start. Giving up."
            )
        delay = min(_FIRST_DELAY_SECONDS * 2**watched.quick_deaths, _LONGEST_DELAY_SECONDS)
        watched.again_at = now + delay
        self._say(f"The {child.obituary()}\nStarting the {child.name} again in {delay:g} s.")
