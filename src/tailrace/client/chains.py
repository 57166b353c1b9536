"""The chains of one reader: whether each run that it read from its first event is what was written."""

from __future__ import annotations

from typing import Literal

from tailrace.client.frame import Frame
from tailrace.digest import Digest

__all__ = ["Chains", "Verdict"]

# Of a finished run. Partial: its first event was not seen. Missing: its finish carries no digest.
Verdict = Literal["ok", "mismatch", "partial", "missing"]


class Chains:
    """Takes the new frames of a stream, in order."""

    def __init__(self) -> None:
        self._open: dict[str, Digest] = {}  # of the runs that have begun and not ended: a few

    def take(self, frame: Frame) -> Verdict | None:
        """What a run's `finish` says of the frames before it; None for every other frame."""
        if frame.seq is None:
            if frame.event == "stream.reset":
                self._open.clear()
            return None
        run_id = str(frame.data.get("run_id"))
        if frame.type == "finish":
            return _verdict(self._open.pop(run_id, None), frame.data.get("digest"))
        if frame.type == "run_queued" and frame.data.get("attempt") == 1:
            self._open.setdefault(run_id, Digest())
        if (chain := self._open.get(run_id)) is not None:
            chain.update(frame.raw.encode())
        return None


def _verdict(chain: Digest | None, told: object) -> Verdict:
    if chain is None:
        return "partial"
    if told is None:
        return "missing"
    return "ok" if chain.hexdigest() == told else "mismatch"
