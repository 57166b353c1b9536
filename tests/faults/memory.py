"""The memory of each API process, over its restarts."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

from tailrace.child import Child

__all__ = ["Memory"]

GROWTH_MB = 150.0  # over the first measure; more is a violation


class Memory:
    """What was measured: the first and the largest resident size, in MB."""

    def __init__(self) -> None:
        self._first: dict[str, float] = {}
        self._most: dict[str, float] = {}

    def look(self, children: Iterable[Child]) -> None:
        """Measure those that run; the first time must be when all are up."""
        for child in children:
            if child.running and (megabytes := _resident(child.pid or 0)):
                self._first.setdefault(child.name, megabytes)
                self._most[child.name] = max(self._most.get(child.name, 0.0), megabytes)

    def report(self) -> dict[str, Any]:
        """By process `first` and `most`."""
        return {name: {"first": self._first[name], "most": most} for name, most in self._most.items()}

    def overruns(self) -> list[str]:
        """Whose memory grew beyond all reason."""
        return [
            f"{name} grew from {self._first[name]:.0f} MB to {most:.0f} MB"
            for name, most in self._most.items()
            if most > self._first[name] + GROWTH_MB
        ]


def _resident(pid: int) -> float:
    with suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return round(int(line.split()[1]) / 1024, 1)
    return 0.0
