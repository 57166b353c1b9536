"""A stream's connection: what is left of a request when its response is a stream that lasts for hours.

The request's coroutines, its scope and uvicorn's state would take several times what the stream itself does,
and each frame would pass through all of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import MutableSet
from typing import Any, Protocol

from tailrace.api.stall import Stall, cut

__all__ = ["Stream", "StreamConnection"]


class Stream(Protocol):
    """Who writes here."""

    def wake(self) -> None:
        """There is room again."""
        ...

    def close(self, reason: Any) -> None:
        """The client is gone."""
        ...


class StreamConnection(asyncio.Protocol):
    """The body of a chunked response, as a sink. Closes the connection behind it."""

    __slots__ = ("_connections", "_loop", "_stall", "_stall_seconds", "_stream", "_transport", "full")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        transport: asyncio.Transport,
        connections: MutableSet[Any],
        *,
        full: bool,
        stall_seconds: float,
    ) -> None:
        self._loop = loop
        self._transport = transport
        self._connections = connections  # the server's, which waits for them when it leaves
        self._stall_seconds = stall_seconds
        self._stream: Stream | None = None
        self._stall: Stall | None = None
        self.full = False  # see `Sink`
        connections.add(self)
        if full:
            self.pause_writing()

    def carry(self, stream: Stream) -> None:
        """Tell `stream` of what happens here; of its end at once, if it has happened."""
        self._stream = stream
        if self._transport.is_closing():
            self._connections.discard(self)
            self._lose()

    def write(self, data: bytes) -> None:
        """See `Sink`."""
        if not self._transport.is_closing():
            self._transport.write(_chunk(data))

    def end(self) -> None:
        """See `Sink`."""
        if not self._transport.is_closing():
            self._transport.write(b"0\r\n\r\n")
            self._transport.close()

    def shutdown(self) -> None:
        """The server leaves: the stream has been told, and ends by itself."""

    def cut(self) -> None:
        """Close at once, without sending what is not sent yet."""
        cut(self._transport)

    def data_received(self, data: bytes) -> None:
        """Nothing that a client could send here means anything."""

    def pause_writing(self) -> None:
        """The buffer is full."""
        self.full = True
        self._stall = Stall(self._loop, self._transport, self._stall_seconds)

    def resume_writing(self) -> None:
        """The buffer is nearly empty again."""
        self.full = False
        self._unwatch()
        if self._stream is not None:
            self._stream.wake()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self._connections.discard(self)
        self._unwatch()
        self._lose()

    def _lose(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close("gone")

    def _unwatch(self) -> None:
        if self._stall is not None:
            self._stall.over()
            self._stall = None


class _Chunks:
    """Puts the frame of chunked transfer coding around data: once for all that are sent the same."""

    def __init__(self) -> None:
        self._data = self._chunk = b""

    def __call__(self, data: bytes) -> bytes:
        if data is not self._data:
            self._data, self._chunk = data, b"%x\r\n%b\r\n" % (len(data), data)
        return self._chunk


_chunk = _Chunks()
