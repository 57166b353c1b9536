"""A segment: some thousand events of one session in a row, as one object that never changes."""

from __future__ import annotations

import gzip
import zlib
from bisect import bisect_left
from collections.abc import Sequence
from hashlib import sha256
from typing import Any

import msgspec

from tailrace.documents import converted
from tailrace.errors import ArchiveDamaged
from tailrace.events import Event

__all__ = ["ArchivedEvent", "Lines", "RunEnd", "Segment", "pack", "unpack"]

LEVEL = 6  # of gzip: 1/19 of the lines' size, at 190 MB a second

_GZIP = 16 + zlib.MAX_WBITS  # the format, for zlib


class RunEnd(msgspec.Struct, frozen=True, kw_only=True):
    """A run whose `finish` stands in a segment."""

    run_id: str
    seq: int  # of the `finish`
    status: str
    digest: str  # of the run's frames: docs/reference/wire-protocol.md


class Segment(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a segment without reading it."""

    segment_id: str  # `_id` in MongoDB: two segments that begin at one place collide
    session_id: str
    first: int  # seq
    last: int  # seq
    first_timestamp: float  # Unix seconds
    last_timestamp: float  # Unix seconds
    bytes: int  # of the lines
    stored_bytes: int  # of the object
    sha256: str  # of the lines: the object's own bytes differ between versions of zlib
    runs: list[RunEnd]

    @property
    def key(self) -> str:
        """Where the object is, below the archive's address."""
        return f"{self.session_id}/{self.first}-{self.last}.ndjson.gz"


class ArchivedEvent(Event, frozen=True, kw_only=True):
    """An event that was read from a segment, with its JSON as it was archived."""

    line: bytes

    def to_json(self) -> bytes:
        """The frame's JSON: the very bytes that were archived."""
        return self.line


def pack(events: Sequence[Event]) -> tuple[Segment, bytes]:
    """The segment of these events, which follow each other, and its object."""
    lines = b"".join(event.to_json() + b"\n" for event in events)
    first, last = events[0], events[-1]
    packed = gzip.compress(lines, LEVEL, mtime=0)  # the same bytes whenever it is packed
    segment = Segment(
        segment_id=f"{first.session_id}:{first.seq}",
        session_id=first.session_id,
        first=first.seq,
        last=last.seq,
        first_timestamp=first.timestamp,
        last_timestamp=last.timestamp,
        bytes=len(lines),
        stored_bytes=len(packed),
        sha256=sha256(lines).hexdigest(),
        runs=[_end(event) for event in events if event.event_type == "finish"],
    )
    return segment, packed


def _end(finish: Event) -> RunEnd:
    data = finish.data
    return RunEnd(
        run_id=finish.run_id,
        seq=finish.seq,
        status=str(data.get("status", "")),
        digest=str(data.get("digest", "")),
    )


def unpack(segment: Segment, packed: bytes) -> Lines:
    """The lines of a segment's object. Raises `ArchiveDamaged` unless they are those that were archived."""
    try:
        lines = zlib.decompressobj(_GZIP).decompress(packed, segment.bytes)
    except zlib.error as error:
        raise ArchiveDamaged(f"{segment.key} cannot be unpacked: {error}") from error
    if sha256(lines).hexdigest() != segment.sha256:
        raise ArchiveDamaged(f"{segment.key} is not what was archived.")
    return Lines(segment, lines)


class Lines:
    """A segment's events, each decoded when it is asked for."""

    def __init__(self, segment: Segment, lines: bytes) -> None:
        self.size = len(lines)
        self._first = segment.first
        self._lines = lines.splitlines()  # JSON escapes every other line break

    def after(self, seq: int, limit: int) -> list[Event]:
        """Up to `limit` events behind `seq`."""
        start = max(0, seq + 1 - self._first)
        return [_event(line) for line in self._lines[start : start + limit]]

    def seq_at(self, timestamp: float) -> int:
        """The first `seq` whose timestamp is not before `timestamp`."""
        return self._first + bisect_left(self._lines, timestamp, key=lambda line: _event(line).timestamp)


_ENVELOPE = frozenset(Event.__struct_fields__) - {"data", "emitted_at", "expires_at"}


def _event(line: bytes) -> ArchivedEvent:
    frame: dict[str, Any] = msgspec.json.decode(line)
    data = {name: frame.pop(name) for name in [*frame] if name not in _ENVELOPE}
    return converted({**frame, "data": data, "line": line}, ArchivedEvent)
