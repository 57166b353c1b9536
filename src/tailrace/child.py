"""A child process: dies with its parent, logs to a file, ends in good order or is made to."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["Child", "free_port"]

# A log is put aside at a start when it is larger than this.
_LOG_BYTES = 20 * 1024 * 1024
_TAIL_BYTES = 64 * 1024
_KEPT_PORTS = 256

# Runs before the program, in its process: SIGKILL when the thread that started it is gone (Linux's
# PR_SET_PDEATHSIG, 1). Not a preexec_fn: that forks, and a fork of a process with threads may hang.
_DIE_WITH_PARENT = """
import ctypes, os, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, 9, 0, 0, 0)
    if os.getppid() != int(sys.argv[1]):
        os._exit(1)
os.execvpe(sys.argv[2], sys.argv[2:], os.environ)
"""


class Child:
    """One program and, while it runs, its process; it can be started again after it ended.

    Start it from the main thread: Linux kills it when the thread that started it ends. It leads a session of
    its own, so that Ctrl-C in the terminal reaches only the parent.
    """

    def __init__(
        self, name: str, argv: Sequence[str], *, log: Path, environ: Mapping[str, str] | None = None
    ) -> None:
        self.name = name
        self.argv = list(argv)
        self.log = log
        self._environ = environ
        self._process: subprocess.Popen[bytes] | None = None
        self._log_start = 0

    @property
    def pid(self) -> int | None:
        """The process's id; None before the first start."""
        return self._process.pid if self._process else None

    @property
    def exit_code(self) -> int | None:
        """None while it runs, else the exit code, negative for a signal."""
        return self._process.poll() if self._process else None

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start the program; return at once."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        if self.log.exists() and self.log.stat().st_size > _LOG_BYTES:
            self.log.replace(self.log.with_suffix(".log.1"))
        with self.log.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", "-c", _DIE_WITH_PARENT, str(os.getpid()), *self.argv],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=None if self._environ is None else dict(self._environ),
                start_new_session=True,
            )

    def stop(self, *, patience: float = 10.0, hurry: Callable[[], bool] = lambda: False) -> None:
        """End it with SIGTERM, and with SIGKILL after `patience` seconds or once `hurry()` is true."""
        if self._process is None:
            return
        self._process.terminate()
        deadline = time.monotonic() + patience
        while self._process.poll() is None and time.monotonic() < deadline and not hurry():
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(timeout=0.1)
        self.kill()

    def kill(self) -> None:
        """End it with SIGKILL, at once."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def obituary(self) -> str:
        """How it ended, and the end of what it logged since its last start."""
        code = self.exit_code or 0
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
        lines = "".join(f"\n    {line}" for line in self.tail())
        return f"{self.name} {how}; the end of {self.log}:{lines or ' (nothing)'}"

    def tail(self, lines: int = 15) -> list[str]:
        """The last lines it logged since its last start."""
        if not self.log.exists():
            return []
        with self.log.open("rb") as log:
            end = log.seek(0, 2)
            log.seek(max(self._log_start, end - _TAIL_BYTES))
            return log.read().decode(errors="replace").splitlines()[-lines:]


def free_port(wanted: int = 0) -> int:
    """`wanted` if this machine's loopback address has it free, else one that the kernel chooses.

    On Linux it is kept for the servers that this process names it to, until the process ends: nobody who
    asks the kernel for any port gets it, not even while such a server is started again. 256 are kept at most.
    """
    for port in (wanted, 0):
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            with suppress(OSError):
                listener.bind(("127.0.0.1", port))
                chosen = int(listener.getsockname()[1])
                _keep(listener)
                return chosen
    raise OSError("no free port")


_kept: deque[int] = deque()  # descriptors, not sockets: those would warn at the end that nobody closed them


def _keep(bound: socket.socket) -> None:
    # Bound and never listening, by SO_REUSEADDR: Linux lets another socket that sets it, as servers do, have
    # the same port, but does not choose it by itself. Other systems do not let the other one have it either.
    if sys.platform == "linux":
        _kept.append(bound.detach())
        if len(_kept) > _KEPT_PORTS:
            os.close(_kept.popleft())
