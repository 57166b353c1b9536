"""A run of the benchmark: its servers, its sizes, and what it tells while it lasts."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence

from ops.bench.deployment import Deployment
from ops.bench.process import usage
from ops.bench.system import System

__all__ = ["Run"]

_QUIET_CORES = 0.2
_QUIET_WITHIN_SECONDS = 10.0


class Run:
    """What every load is given."""

    def __init__(
        self,
        deployment: Deployment,
        *,
        systems: Iterable[str],
        rounds: int,
        scale: float,
        full: bool,
        runs: Sequence[int],
        say: Callable[[str], None] | None = None,
    ) -> None:
        self.deployment = deployment
        self.rounds = rounds
        self.full = full  # also what takes many minutes
        self.runs = runs  # at once, in each measurement of the whole path
        self._systems = frozenset(systems)
        self._scale = scale  # of streams, events and seconds; 1 for figures that count
        self._began = time.monotonic()
        self._print = say or (lambda line: print(line, file=sys.stderr, flush=True))

    @property
    def mongod(self) -> int:
        """The process id of mongod."""
        pid = self.deployment.mongod.child.pid
        assert pid is not None
        return pid

    def say(self, line: str) -> None:
        """Show how far it is."""
        self._print(f"{time.monotonic() - self._began:6.0f} s  {line}")

    def chosen(self, *systems: System) -> list[System]:
        """Those of `systems` that were asked for."""
        return [system for system in systems if system.name in self._systems]

    def interleaved(self, *systems: System, once: Sequence[System] = ()) -> Iterator[System]:
        """The systems in turn, round by round, so that what disturbs the machine meets them all.

        Those of `once` only in the first round: they lie so far off that more rounds tell nothing new.
        """
        for nth in range(self.rounds):
            for system in self.chosen(*systems, *(once if nth == 0 else ())):
                self._await_quiet()
                yield system

    def _await_quiet(self) -> None:
        """Let whatever else keeps the machine busy end, if it soon does."""
        deadline = time.monotonic() + self._scale * _QUIET_WITHIN_SECONDS
        while time.monotonic() < deadline:
            with usage({}) as used:
                time.sleep(0.5)
            if used.cpu["others"] / used.seconds < _QUIET_CORES:
                return

    def many(self, count: int, *, least: int = 1) -> int:
        """`count`, or fewer in a smaller run."""
        return max(least, round(count * self._scale))

    def seconds(self, seconds: float, *, least: float = 1.0) -> float:
        """`seconds`, or fewer in a smaller run."""
        return max(least, seconds * self._scale)
