"""A connection: uvicorn's, but one whose client takes nothing is cut, and holds no memory for ever."""

from __future__ import annotations

import logging
import socket
import struct
from asyncio import TimerHandle
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol as _Protocol
else:
    from uvicorn.protocols.http.auto import AutoHTTPProtocol as _Protocol  # h11's, where httptools is not

__all__ = ["Connection", "connection_with"]

log = logging.getLogger(__name__)

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: closing forgets what the kernel still holds


class Connection(_Protocol):
    """Aborts when nothing that waits to be sent was taken for `stall_seconds`: between once and twice that.

    Nothing less will do: `transport.close()`, which is all that cancelling or failing a request leads to,
    first waits for what was written to be read. A reader that is slow, but reads, is let live.
    """

    stall_seconds: ClassVar[float] = 30.0
    _look_again: TimerHandle | None = None

    def pause_writing(self) -> None:
        """The buffer is full: begin to watch it. A timer exists only for as long as this lasts."""
        super().pause_writing()
        self._watch()

    def resume_writing(self) -> None:
        """The buffer is nearly empty again."""
        super().resume_writing()
        self._unwatch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        self._unwatch()
        super().connection_lost(exc)

    def cut(self) -> None:
        """Close at once, without sending what is not sent yet."""
        if (peer := self.transport.get_extra_info("socket")) is not None:
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
        self.transport.abort()

    def _watch(self) -> None:
        # Without what the kernel still holds (TIOCOUTQ): a window of a few bytes lets that shrink by a little
        # for minutes although nobody reads.
        waiting = self.transport.get_write_buffer_size()
        self._look_again = self.loop.call_later(self.stall_seconds, self._look, waiting)

    def _unwatch(self) -> None:
        if self._look_again is not None:
            self._look_again.cancel()
            self._look_again = None

    def _look(self, waiting: int) -> None:
        if self.transport.get_write_buffer_size() < waiting:
            self._watch()
            return
        log.info("A client that takes nothing is cut", extra={"action": "cut", "waiting_bytes": waiting})
        self.cut()


def connection_with(stall_seconds: float) -> type[Connection]:
    """The class of connections with that bound; uvicorn makes them, and passes nothing on."""
    return type("Connection", (Connection,), {"stall_seconds": stall_seconds})
