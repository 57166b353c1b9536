"""Server-sent events, parsed as the bytes come (WHATWG HTML, section 9.2.6)."""

from __future__ import annotations

import re

import msgspec

from tailrace.client.errors import BadStream

__all__ = ["MAX_FRAME_BYTES", "Block", "Parser"]

MAX_FRAME_BYTES = 4 * 1024 * 1024  # of one frame: 256 KiB of text in JSON escapes, with room to spare
_LINE_END = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Block(msgspec.Struct, frozen=True, kw_only=True):
    """One dispatched frame. `id` is the frame's own: it is None where the frame has none."""

    event: str
    data: str
    id: str | None = None


class Parser:
    """Turns chunks of bytes, cut anywhere, into blocks. Holds at most `MAX_FRAME_BYTES`."""

    def __init__(self) -> None:
        self.retry_seconds: float | None = None  # the last `retry:` of the stream
        self._line: list[bytes] = []  # the pieces of the unfinished line
        self._held = 0  # bytes of the unfinished frame
        self._after_cr = False  # the last chunk ended in CR: an LF next belongs to it
        self._at_start = True
        self._event = ""
        self._data: list[str] = []
        self._id: str | None = None

    def feed(self, chunk: bytes) -> list[Block]:
        """The blocks that `chunk` completes. Raises `BadStream` when a frame grows past the limit."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        blocks: list[Block] = []
        *ended, rest = _LINE_END.split(chunk)
        for piece in ended:
            self._hold(piece)
            line = b"".join(self._line)
            self._line.clear()
            block = self._take(line)
            if block is not None:
                blocks.append(block)
        self._hold(rest)
        return blocks

    def _hold(self, piece: bytes) -> None:
        self._held += len(piece)
        if self._held > MAX_FRAME_BYTES:
            raise BadStream(f"A frame is larger than {MAX_FRAME_BYTES:,} bytes.")
        if piece:
            self._line.append(piece)

    def _take(self, line: bytes) -> Block | None:
        if self._at_start:
            line = line.removeprefix(_BOM)
            self._at_start = False
        if not line:
            return self._dispatch()
        # A whole line is decoded at once, so a character split over two chunks is never torn.
        name, _, value = line.decode("utf-8", "replace").partition(":")
        value = value.removeprefix(" ")
        if name == "data":
            self._data.append(value)
        elif name == "event":
            self._event = value
        elif name == "id" and "\0" not in value:
            self._id = value
        elif name == "retry" and value.isascii() and value.isdigit() and len(value) < 10:
            self.retry_seconds = int(value) / 1000
        return None  # a comment has an empty name; other names are ignored, as the standard wants

    def _dispatch(self) -> Block | None:
        block = None
        if self._data:
            block = Block(event=self._event or "message", data="\n".join(self._data), id=self._id)
        self._clear()
        return block

    def _clear(self) -> None:
        self._event = ""
        self._data = []
        self._id = None
        self._held = 0
