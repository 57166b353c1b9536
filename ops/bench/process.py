"""What a process costs, as Linux's /proc tells it (proc(5))."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

__all__ = ["Peak", "Usage", "cpu_seconds", "descendants", "memory", "peak", "usage"]

_TICKS = os.sysconf("SC_CLK_TCK")
_SAMPLE_SECONDS = 0.05


def cpu_seconds(pid: int, *, ended: bool = False) -> float:
    """User and system time of a process, of all its threads, in steps of 10 ms.

    With `ended`, also that of its children which have ended and were waited for.
    """
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(int(field) for field in fields[11 : 15 if ended else 13]) / _TICKS


def _machine_seconds() -> float:
    """Seconds that this machine's cores were busy since it started, all together."""
    user, nice, system, _idle, _iowait, irq, softirq, *_ = map(
        int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]
    )
    return (user + nice + system + irq + softirq) / _TICKS


class Usage:
    """CPU seconds by process, those of all others of the machine as `others`, and how long it was."""

    def __init__(self) -> None:
        self.cpu: dict[str, float] = {}
        self.seconds = 0.0


@contextmanager
def usage(pids: Mapping[str, int]) -> Iterator[Usage]:
    """What these processes use for as long as the context lasts; filled in at its end."""
    used = Usage()
    began, busy = time.monotonic(), _machine_seconds()
    before = {name: cpu_seconds(pid) for name, pid in pids.items()}
    yield used
    used.cpu = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
    used.cpu["others"] = max(0.0, _machine_seconds() - busy - sum(used.cpu.values()))
    used.seconds = time.monotonic() - began


def memory(pid: int) -> tuple[int, int]:
    """Bytes of a process's memory: its proportional share (Pss), and what is its alone (private)."""
    found: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, rest = line.partition(":")
        found[name] = int(rest.split()[0]) * 1024
    return found["Pss"], found["Private_Clean"] + found["Private_Dirty"]


def descendants(pid: int) -> list[int]:
    """The processes that `pid` started, and theirs."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                parent = int((entry / "stat").read_text().rpartition(")")[2].split()[1])
            except (OSError, IndexError):  # it has ended meanwhile
                continue
            children.setdefault(parent, []).append(int(entry.name))
    found, waiting = [], [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


class Peak:
    """The most memory that a process had, in bytes of Pss, and what it had at first."""

    def __init__(self, first: int) -> None:
        self.first = self.most = first


@contextmanager
def peak(pid: int) -> Iterator[Peak]:
    """Watch a process's memory for as long as the context lasts, twenty times a second."""
    seen = Peak(memory(pid)[0])
    over = threading.Event()

    def watch() -> None:
        while not over.wait(_SAMPLE_SECONDS):
            seen.most = max(seen.most, memory(pid)[0])

    thread = threading.Thread(target=watch, daemon=True)
    try:
        thread.start()
        yield seen
        time.sleep(_SAMPLE_SECONDS)
    finally:
        over.set()
        thread.join()
