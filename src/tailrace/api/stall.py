"""A stall: a client that takes nothing of what is sent to it, and how its connection is cut."""

from __future__ import annotations

import logging
import socket
import struct
from asyncio import AbstractEventLoop, TimerHandle, Transport

__all__ = ["Stall", "cut"]

log = logging.getLogger(__name__)

_RESET = struct.pack("ii", 1, 0)  # SO_LINGER for no time: closing forgets what the kernel still holds


class Stall:
    """Cuts a connection when nothing that waits was taken for `seconds`: between once and twice that.

    It exists only for as long as the transport's buffer is full.
    """

    __slots__ = ("_look_again", "_loop", "_seconds", "_transport")

    def __init__(self, loop: AbstractEventLoop, transport: Transport, seconds: float) -> None:
        self._loop = loop
        self._transport = transport
        self._seconds = seconds
        self._watch()

    def over(self) -> None:
        """The client has taken it, or is gone."""
        self._look_again.cancel()

    def _watch(self) -> None:
        # Without what the kernel still holds (TIOCOUTQ): a window of a few bytes lets that shrink by a little
        # for minutes although nobody reads.
        waiting = self._transport.get_write_buffer_size()
        self._look_again: TimerHandle = self._loop.call_later(self._seconds, self._look, waiting)

    def _look(self, waiting: int) -> None:
        if self._transport.get_write_buffer_size() < waiting:
            self._watch()
            return
        log.info("A client that takes nothing is cut", extra={"action": "cut", "waiting_bytes": waiting})
        cut(self._transport)


def cut(transport: Transport) -> None:
    """Close at once, without sending what is not sent yet.

    Nothing less ends a client that reads nothing: `close` first waits for what was written to be read.
    """
    if (peer := transport.get_extra_info("socket")) is not None:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    transport.abort()
