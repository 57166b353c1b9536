"""The pool of workers, and a worker's own end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest
from rq.exceptions import StopRequested

from tailrace.settings import Settings
from tailrace_worker.worker import RunWorker

_DEAF = """
import os, signal, sys, time
from tailrace_worker import pool

def work():
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    os.write(1, b"deaf\\n")  # in one piece, also where PYTHONUNBUFFERED is set
    time.sleep(600)

pool.LEAVE_SECONDS = 0.2
sys.exit(pool.Pool(work, count=2, handover_seconds=0).run())
"""


def test_workers_that_would_not_leave_are_killed_and_the_pool_ends_in_order() -> None:
    with subprocess.Popen([sys.executable, "-c", _DEAF], stdout=subprocess.PIPE) as pool:
        assert pool.stdout is not None
        told = [pool.stdout.readline() for _ in range(2)]
        pool.send_signal(signal.SIGTERM)  # first of all: leaving this block waits for its end
        assert told == [b"deaf\n", b"deaf\n"]
        assert pool.wait(60) == 0


def test_a_wish_to_stop_that_comes_while_a_spare_is_forked_is_not_lost(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """RQ raises in the signal's handler; in a hook that runs at a fork Python would drop that."""
    worker = RunWorker(settings)
    seen: list[str] = []

    def fork() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        seen.append("forked undisturbed")

    monkeypatch.setattr(worker._spares, "keep", fork)
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)}
    worker._install_signal_handlers()
    try:
        with pytest.raises(StopRequested):
            worker._keep_spare()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        worker.connection.close()
    assert seen == ["forked undisturbed"]
    assert worker.ended_on_request
