"""A spare waits, is given a job, dies, or grows old."""

from __future__ import annotations

import os
from typing import NoReturn

import msgspec
import pytest

from tailrace_worker import spare
from tailrace_worker.spare import Order, Spares


def perform(pipe: int) -> NoReturn:
    """Ends with the number that its order names."""
    said = os.read(pipe, 4096)
    os._exit(int(msgspec.json.decode(said, type=Order).job_id) if said else 0)


def given(spares: Spares, number: int) -> tuple[int, int]:
    """The process that was given the job, and its exit status."""
    pid = spares.give(Order(job_id=str(number), execution_id="e"))
    return pid, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kept(spares: Spares) -> int:
    spares.keep()
    assert spares._spare is not None
    return spares._spare.pid


def test_a_spare_performs_the_next_job() -> None:
    spares = Spares(perform)
    pid = kept(spares)
    assert kept(spares) == pid
    assert given(spares, 7) == (pid, 7)


def test_without_a_spare_a_process_is_forked_for_the_job() -> None:
    assert given(Spares(perform), 5)[1] == 5


def test_a_job_given_to_a_dead_spare_is_performed_all_the_same() -> None:
    spares = Spares(perform)
    dead = kept(spares)
    os.kill(dead, 9)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    pid, status = given(spares, 3)
    assert (pid != dead, status) == (True, 3)


def test_a_dead_spare_is_replaced() -> None:
    spares = Spares(perform)
    dead = kept(spares)
    os.kill(dead, 9)
    os.waitid(os.P_PID, dead, os.WEXITED | os.WNOWAIT)
    assert kept(spares) != dead
    with pytest.raises(ChildProcessError):
        os.waitpid(dead, 0)  # no zombie is left
    given(spares, 1)


def test_an_old_spare_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    spares = Spares(perform)
    old = kept(spares)
    monkeypatch.setattr(spare, "MAX_SECONDS", 0.0)
    assert kept(spares) != old
    with pytest.raises(ChildProcessError):
        os.waitpid(old, 0)
    given(spares, 1)
