"""A hole: events that should follow a reader's position and are not there, until they are or are given up."""

from __future__ import annotations

import logging
from typing import Literal

from tailrace.metrics import HOLES, HOLES_REPAIRED, HOLES_SKIPPED

__all__ = ["HOLE_LOOKS", "HOLE_SECONDS", "Hole", "found"]

log = logging.getLogger(__name__)

HOLE_SECONDS = 0.2  # between looks at a hole in the log
HOLE_LOOKS = 25  # of one stream, over all its holes: 5 s, for a commit or an expiry that is under way


def found(where: Literal["channel", "frame", "history"], session_id: str, *, after: int, seq: int) -> None:
    """Count and log a hole: `seq` came, `after + 1` was due."""
    HOLES.add(where)
    log.error(
        "A hole in the order of events",
        extra={"action": "hole", "found": where, "session_id": session_id, "after": after, "seq": seq},
    )


class Hole:
    """The hole before which one reader stands, if it does; counted once, however often it is looked at."""

    __slots__ = ("_after", "_looks", "_session_id")

    def __init__(self, session_id: str) -> None:
        self._session_id = session_id
        self._after: int | None = None  # the newest event before it
        self._looks = HOLE_LOOKS

    def stand(self, after: int) -> None:
        """A hole that was counted where it was found lies behind `after`."""
        self._after = after

    def look(self, after: int, seq: int) -> bool:
        """Whether to look again for what the log lacks between `after` and `seq`, or to go on behind it."""
        if self._after != after:
            found("history", self._session_id, after=after, seq=seq)
            self._after = after
        if self._looks:
            self._looks -= 1
            return True
        self._after = None
        HOLES_SKIPPED.add()
        log.error(
            "Events are missing from the log; a stream goes on behind them",
            extra={"action": "hole_skipped", "session_id": self._session_id, "after": after, "seq": seq},
        )
        return False

    def passed(self) -> None:
        """What followed the reader's position was there."""
        if self._after is not None:
            HOLES_REPAIRED.add()
            self._after = None
