"""The supervisor: what it says of a death, and when it gives up."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from tailrace import supervisor
from tailrace.child import Child
from tailrace.errors import TailraceError
from tailrace.signals import Asked, Signals
from tailrace.supervisor import Supervisor


def program(text: str, log: Path) -> Child:
    return Child("thing", [sys.executable, "-c", text], log=log)


def test_child_that_always_dies_at_once_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(supervisor, "_FIRST_DELAY_SECONDS", 0.001)
    child = program("import sys; print('no such place'); sys.exit(3)", tmp_path / "log")
    said: list[str] = []
    with Signals() as signals:
        watching = Supervisor(signals, said.append)
        child.start()
        watching.add(child)
        with pytest.raises(TailraceError, match=r"(?s)no such place.*ended 6 times.*Giving up"):
            watching.watch()
    assert said.count("Started the thing again.") == 5
    assert "The thing ended with code 3" in said[0]
    assert str(tmp_path / "log") in said[0]
    assert "no such place" in said[0]


def test_wish_to_end_interrupts_the_wait_and_is_counted(tmp_path: Path) -> None:
    child = program("import time; time.sleep(600)", tmp_path / "log")
    with Signals() as signals:
        watching = Supervisor(signals, print)
        child.start()
        watching.add(child)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Asked):
            watching.watch()
        assert not signals.hurry
        os.kill(os.getpid(), signal.SIGINT)
        assert signals.hurry
        child.stop(patience=60, hurry=lambda: signals.hurry)
    assert not child.running


def test_handlers_are_put_back(tmp_path: Path) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Signals():
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before
