"""The load generator: one process that reads all streams of a measurement."""

from __future__ import annotations

import hashlib
import os
import shutil
import struct
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from ops.bench.histogram import Histogram
from ops.bench.peer import Peer, PeerFailed

__all__ = ["Counted", "Readers", "loadgen", "readers"]

_SOURCE = Path(__file__).with_name("loadgen.c")
_END_SECONDS = 30.0  # to hear what was counted


class Counted(msgspec.Struct, frozen=True, kw_only=True):
    """What the load generator saw."""

    opened: int
    answered: int
    refused: int  # no 200, or no connection
    lost: int  # streams that the server ended
    events: int  # those of the warm-up too
    measured: int
    holes: int  # events that were skipped within a stream
    doubles: int
    least: int  # events of the stream that got fewest
    most: int
    bytes: int
    seconds: float
    cpu_seconds: float  # the load generator's own
    latency: Histogram  # from an event's stamp to its last byte
    joining: Histogram  # from connect(2) to the first byte of the body
    # Each stream's events and bytes, and ns from its connect(2) to the first byte of its body, to the text of
    # `mark`, to its first event and to its end.
    streams: tuple[tuple[int, int, int, int, int, int], ...] = ()


class Readers:
    """A running load generator."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.pid = peer.pid

    def ready(self, within: float = 120.0) -> dict[str, Any]:
        """Wait until every stream has answered; how many, and in how many seconds. Raises `PeerFailed`."""
        return self._peer.hear("ready", within=within)

    def counted(self, *, expect: int | None = None, within: float = 0.0) -> Counted:
        """What was counted until `expect` events had come, or with finish=1 every stream had ended.

        But at most `within` seconds from now. Raises `PeerFailed`.
        """
        told: dict[str, Any] | None = None
        if expect is not None:
            self._peer.say(f"expect {expect}")
        if within:
            try:
                told = self._peer.hear("end", within=within)
            except PeerFailed:
                told = None
        if told is None:
            self._peer.say("stop")
            told = self._peer.hear("end", within=_END_SECONDS)
        return msgspec.convert(told, Counted)


@contextmanager
def readers(
    port: int, requests: Iterable[bytes], mode: str = "hold", *, mark: str = "", **options: float
) -> Iterator[Readers]:
    """A load generator that sends `requests` in turn to 127.0.0.1:`port`; its options stand in loadgen.c."""
    with tempfile.NamedTemporaryFile(suffix=".requests") as file:
        for request in requests:
            file.write(struct.pack("<I", len(request)) + request)
        file.flush()
        named = [f"{name}={value}" for name, value in options.items()] + ([f"mark={mark}"] if mark else [])
        with Peer([*loadgen(), "127.0.0.1", str(port), file.name, mode, *named]) as peer:
            yield Readers(peer)


@cache
def loadgen() -> Sequence[str]:
    """The command of the load generator: compiled on the spot, or Python's where there is no C compiler."""
    compiler = shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or sys.platform != "linux":
        return sys.executable, "-m", "ops.bench.slow_loadgen"
    source = _SOURCE.read_bytes()
    name = f"tailrace-loadgen-{os.getuid()}-{hashlib.sha256(source).hexdigest()[:16]}"
    program = Path(tempfile.gettempdir()) / name
    if not program.exists():
        fresh = program.with_suffix(f".{os.getpid()}")
        subprocess.run([compiler, "-O2", "-o", str(fresh), str(_SOURCE)], check=True)
        fresh.replace(program)
    return (str(program),)
