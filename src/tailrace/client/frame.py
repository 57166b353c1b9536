"""A frame: what a stream yields, an event or a word of the server about the stream itself."""

from __future__ import annotations

from typing import Any

import msgspec

from tailrace.client.errors import BadStream
from tailrace.client.sse import Block

__all__ = ["Frame", "frame_of"]


class Frame(msgspec.Struct, frozen=True, kw_only=True):
    """One frame of a stream."""

    event: str  # the SSE name: delta, message, tool, finish …, or `stream.ready` and the like
    data: dict[str, Any]  # the frame's JSON
    id: str | None = None  # `<session_id>:<seq>`; None for a frame that is no event
    seq: int | None = None  # the place in the session's log; None for a frame that is no event
    raw: str = ""  # `data` as it came, to the character: what a run's digest chains

    @property
    def type(self) -> str:
        """The event's type (`message_delta`, `finish` …), or the SSE name of a frame that is no event."""
        return str(self.data.get("event_type", self.event))


def frame_of(block: Block) -> Frame:
    """The frame in `block`. Raises `BadStream` when it is not a JSON object, or an event without `seq`."""
    try:
        data = msgspec.json.decode(block.data, type=dict[str, Any])
    except msgspec.DecodeError as error:
        raise BadStream(f"A {block.event!r} frame is not a JSON object: {error}") from error
    if not block.id:
        return Frame(event=block.event, data=data, raw=block.data)
    seq = data.get("seq")
    if not isinstance(seq, int) or isinstance(seq, bool) or seq < 1:
        raise BadStream(f"The event {block.id!r} has no place in the log: seq is {seq!r}.")
    return Frame(event=block.event, data=data, id=block.id, seq=seq, raw=block.data)
