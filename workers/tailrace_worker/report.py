"""A process's report: what it has counted since the last one, sent to the process that shows it.

A run lives in a process of its own, which is gone before anybody scrapes it. It sends its numbers in a
datagram, every two seconds and at its end: one system call, and nothing to clean up after a process that was
killed.
"""

from __future__ import annotations

import logging
import socket

import msgspec

from tailrace.metrics import drained, settle

__all__ = ["report", "report_to"]

LAST_SECONDS = 0.1  # for the receiver to take a process's last report

log = logging.getLogger(__name__)

_receiver: socket.socket | None = None  # inherited by every process that is forked after `report_to`


def report_to(receiver: socket.socket | None) -> None:
    """Send this process's reports, and those of the processes it forks from now on, to `receiver`."""
    global _receiver  # noqa: PLW0603 - RQ calls a run's function by name and can hand it nothing
    _receiver = receiver


def report(*, last: bool = False) -> None:
    """Send what was counted since the last report, if anybody shows it.

    What cannot be sent now is part of the next report; `last` says that there is none, and waits a little.
    """
    if _receiver is None:
        return
    try:
        _receiver.settimeout(LAST_SECONDS if last else 0)
        _receiver.send(msgspec.json.encode(drained()))
    except BlockingIOError:
        return
    except OSError as error:
        # The metrics suffer; the run does not.
        log.warning("Metrics were not reported", extra={"action": "report", "error": str(error)})
        return
    settle()
