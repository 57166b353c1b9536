"""A cursor: how far one reader has come in one session's log, over all its connections."""

from __future__ import annotations

from typing import Literal

from tailrace.client.errors import BadStream
from tailrace.client.frame import Frame

__all__ = ["Cursor", "Follow"]

Follow = Literal["run", "session", "none"]

_HOLES_BORNE = 3  # in a row, at one place; more is a broken log, and reconnecting does not mend it


class Cursor:
    """Decides which frames are new, where to go on, and whether a stream that ended has ended for good."""

    def __init__(
        self,
        *,
        last_event_id: str | None = None,
        since_timestamp: float | None = None,
        run_id: str | None = None,
        follow: Follow = "run",
    ) -> None:
        self.run_id = run_id
        self.follow = follow
        self._last_event_id = last_event_id
        self._since_timestamp = since_timestamp
        self._last_seq = 0
        self._holes = 0
        self._last_event = ""  # the SSE name of the newest frame

    def headers(self) -> dict[str, str]:
        """Where to start, for the next request."""
        return {"Last-Event-ID": self._last_event_id} if self._last_event_id else {}

    def params(self) -> dict[str, str]:
        """What to read, for the next request."""
        params: dict[str, str] = {"follow": self.follow}
        if self.run_id:
            params["run_id"] = self.run_id
        if self._since_timestamp is not None and not self._last_event_id:
            params["since_timestamp"] = f"{self._since_timestamp:.6f}"
        return params

    def advance(self, frame: Frame) -> bool:
        """Whether `frame` is new; False for one already seen. Raises `Hole` when one is missing before it."""
        self._last_event = frame.event
        if frame.seq is None:
            if frame.event == "stream.reset":
                self._forget()
            return True
        if frame.seq <= self._last_seq:
            return False
        if self._last_seq and frame.seq != self._last_seq + 1 and not self.run_id:
            self._holes += 1
            missing = f"After event {self._last_seq} comes event {frame.seq}."
            if self._holes > _HOLES_BORNE:
                raise BadStream(missing)
            raise Hole(missing)
        self._holes = 0
        self._last_seq = frame.seq
        self._last_event_id = frame.id
        return True

    @property
    def ended(self) -> bool:
        """Whether a stream that the server closed in good order needs no reconnect."""
        # After `stream.expired` the server says by its status whether it was the token or the session.
        if self._last_event in ("stream.rotate", "stream.expired", "stream.reset", "stream.lagged"):
            return False
        if self.follow == "session":
            return False
        # An empty replay where nothing runs ends with `stream.ready`; any other end wants the server's 204.
        return self.follow == "none" or self._last_event in ("finish", "stream.ready")

    def _forget(self) -> None:
        self._last_seq = 0
        self._last_event_id = None
        self._since_timestamp = None


class Hole(Exception):
    """An event is missing; asking again from the last one brings it."""
