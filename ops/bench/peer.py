"""A program of the benchmark beside this process, which tells in JSON lines how far it is."""

from __future__ import annotations

import os
import select
import subprocess
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import msgspec

__all__ = ["Peer", "PeerFailed", "end_with_stdin", "python_environ", "tell"]

ROOT = Path(__file__).parents[2]


class PeerFailed(Exception):
    """A program of the benchmark ended, or stayed silent, where it should have told something."""


class Peer:
    """A running program. It ends at the end of its stdin, so it never outlives this process."""

    def __init__(self, argv: Sequence[str]) -> None:
        self._process = subprocess.Popen(
            argv,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=ROOT,
            env=python_environ(),
            start_new_session=True,  # Ctrl-C in the terminal reaches only the benchmark, which ends it
        )
        self._rest = b""

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            assert pipe is not None
            pipe.close()
        try:
            self._process.wait(timeout=2)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def say(self, line: str) -> None:
        """Give it a line, if it is still there."""
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except BrokenPipeError:
            pass  # it has said its last already, which is waiting to be heard

    def hear(self, at: str, *, within: float) -> dict[str, Any]:
        """The next line with this `at`; others before it are dropped. Raises `PeerFailed`."""
        deadline = time.monotonic() + within
        while True:
            line = self._line(deadline, at)
            told = msgspec.json.decode(line, type=dict[str, Any])
            if told.get("at") == at:
                return told

    def _line(self, deadline: float, at: str) -> bytes:
        assert self._process.stdout is not None
        while b"\n" not in self._rest:
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self._process.stdout], [], [], left)[0]:
                raise PeerFailed(f"{self._process.args!r} did not say {at!r} in time")
            got = os.read(self._process.stdout.fileno(), 1 << 20)
            if not got:
                raise PeerFailed(f"{self._process.args!r} ended before it said {at!r}")
            self._rest += got
        line, _, self._rest = self._rest.partition(b"\n")
        return line


def python_environ() -> dict[str, str]:
    """The environment of a program that imports `ops.bench`."""
    path = os.environ.get("PYTHONPATH")
    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{path}" if path else str(ROOT)}


def tell(at: str, **told: object) -> None:
    """Say how far this program is, to the benchmark that started it."""
    print(msgspec.json.encode({"at": at, **told}).decode(), flush=True)


def end_with_stdin() -> None:
    """End this program when its stdin ends, which is when the benchmark is gone."""

    def wait() -> None:
        while os.read(0, 4096):  # not sys.stdin, whose lock would still be held at the interpreter's end
            pass
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
