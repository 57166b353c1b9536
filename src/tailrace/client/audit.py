"""An audit: whether a session's log, read from its beginning, has every event and is what was written."""

from __future__ import annotations

from typing import Literal

import msgspec

from tailrace.client.chains import Chains, Verdict
from tailrace.client.frame import Frame

__all__ = ["Audit", "RunReport", "SessionReport"]

_FAULTS: dict[Verdict | None, str] = {
    "mismatch": "its events do not lead to its digest: one is missing, doubled or changed",
    "missing": "its finish carries no digest",
}


class RunReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of one run."""

    run_id: str
    first_seq: int
    last_seq: int
    events: int
    status: str  # its finish's, or `running`
    digest: Verdict | Literal["running"]  # partial: its beginning has expired, so it cannot be checked
    faults: list[str]  # in words


class SessionReport(msgspec.Struct, frozen=True, kw_only=True):
    """What was found of a session."""

    session_id: str
    first_seq: int  # above 1 when older events have expired
    last_seq: int
    verified: bool  # no fault here or in a run; a run that is running or partial is none
    faults: list[str]  # in words
    runs: list[RunReport]


class Audit:
    """Takes every frame of a replay of one session from its beginning."""

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._begin(1)

    def take(self, frame: Frame) -> None:
        """Note what `frame` tells."""
        if frame.event == "stream.reset" and frame.data.get("reason") == "hole":
            self._miss(int(frame.data["from_seq"]))
            self._next = int(frame.data["from_seq"])
        elif frame.event == "stream.reset" or (frame.event == "stream.ready" and not self._runs):
            self._begin(int(frame.data["from_seq"]))
        if frame.event == "stream.ready":
            self._tail = int(frame.data["tail_seq"])
        if frame.seq is None:
            return
        self._miss(frame.seq)
        self._next = frame.seq + 1
        run_id = str(frame.data.get("run_id"))
        run = self._runs.setdefault(run_id, _RunAudit(run_id, frame, self._first))
        run.take(frame, frame.seq, self._chains.take(frame))

    def report(self) -> SessionReport:
        """What was found, when the replay has ended."""
        self._miss(self._tail + 1)
        runs = [run.report() for run in self._runs.values()]
        return SessionReport(
            session_id=self._session_id,
            first_seq=self._first,
            last_seq=self._next - 1,
            verified=not (self._faults or any(run.faults for run in runs)),
            faults=self._faults,
            runs=runs,
        )

    def _begin(self, first: int) -> None:
        self._first = self._next = first
        self._tail = first - 1
        self._chains = Chains()
        self._faults: list[str] = []
        self._runs: dict[str, _RunAudit] = {}

    def _miss(self, seq: int) -> None:
        """Note that nothing was read before `seq`, if something should have been."""
        if seq == self._next + 1:
            self._faults.append(f"event {self._next} is missing")
        elif seq > self._next:
            self._faults.append(f"events {self._next} to {seq - 1} are missing, or cannot be reached")


class _RunAudit:
    """What has been read of one run."""

    def __init__(self, run_id: str, first: Frame, log_begins: int) -> None:
        self._run_id = run_id
        self._first_seq = self._last_seq = first.seq or 0
        self._events = 0
        self._status = "running"
        self._digest: Verdict | None = None
        self._faults: list[str] = []
        # Where the log has lost its beginning, a run may have lost its own with it.
        if first.type != "run_queued" and log_begins == 1:
            self._faults.append(f"it begins with {first.type} at {first.seq}, not with run_queued")

    def take(self, frame: Frame, seq: int, verdict: Verdict | None) -> None:
        self._events += 1
        self._last_seq = seq
        if self._digest is not None:
            self._faults.append(f"after its finish comes {frame.type} at {seq}")
            return
        if verdict is None:
            return
        self._digest = verdict
        self._status = str(frame.data.get("status"))
        if verdict in _FAULTS:
            self._faults.append(_FAULTS[verdict])
        if frame.data.get("last_seq") != seq:
            self._faults.append(f"its finish at {seq} says that it stands at {frame.data.get('last_seq')}")

    def report(self) -> RunReport:
        return RunReport(
            run_id=self._run_id,
            first_seq=self._first_seq,
            last_seq=self._last_seq,
            events=self._events,
            status=self._status,
            digest=self._digest or "running",
            faults=self._faults,
        )
