"""A connection: uvicorn's, but a client that stalls, or sends a head without end, holds nothing for ever."""

from __future__ import annotations

import logging
from asyncio import TimerHandle, Transport
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from typing import Any, ClassVar

import msgspec
from litestar.types import Scope
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from tailrace.api.problems import MEDIA_TYPE, Problem
from tailrace.api.stall import Stall, cut
from tailrace.api.stream_connection import StreamConnection

__all__ = ["Connection", "connection_with", "taker"]

log = logging.getLogger(__name__)

MAX_HEAD_BYTES = 64 * 1024  # of a request's line and headers, or trailers; the parser itself knows no end

_TOO_LARGE = f"A request's head must fit into {MAX_HEAD_BYTES // 1024} KiB."
_EXTENSION = "tailrace.take_over"  # of ASGI, in a request's scope


class Connection(HttpToolsProtocol):
    """Cut when nothing that waits to be sent was taken for `stall_seconds`: between once and twice that. A
    reader that is slow, but reads, is let live.

    A request's head has to be here within `stall_seconds` too (408), in about `MAX_HEAD_BYTES` (431).
    """

    stall_seconds: ClassVar[float] = 30.0
    _stall: Stall | None = None
    _give_up: TimerHandle | None = None  # on the head that is to come
    _unframed = 0  # bytes since the last head, or the last of a body

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """A client is here; its first request may take `stall_seconds`."""
        super().connection_made(transport)
        self._await_head()

    def data_received(self, data: bytes) -> None:
        """Some bytes of a request."""
        self._unframed += len(data)
        super().data_received(data)
        self._await_head()
        if self._unframed > MAX_HEAD_BYTES:
            self._refuse(431, _TOO_LARGE)

    def on_headers_complete(self) -> None:
        """A head is whole. Raises `ValueError` when it is too large, as one that came at once may be."""
        self._unframed = 0
        if len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers) > MAX_HEAD_BYTES:
            self._refuse(431, _TOO_LARGE)
            raise ValueError(_TOO_LARGE)  # for the parser, which goes no further then
        super().on_headers_complete()
        extensions: dict[str, Any] = {_EXTENSION: partial(self._take_over, self.cycle)}
        self.scope["extensions"] = extensions

    def on_body(self, body: bytes) -> None:
        """Some bytes of a body, which is bounded elsewhere."""
        self._unframed = 0
        super().on_body(body)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP."""
        self._refuse(400, msg)

    def pause_writing(self) -> None:
        """The buffer is full: begin to watch it. A timer exists only for as long as this lasts."""
        super().pause_writing()
        self._stall = Stall(self.loop, self.transport, self.stall_seconds)

    def resume_writing(self) -> None:
        """The buffer is nearly empty again."""
        super().resume_writing()
        self._unwatch()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is closed, by whomever."""
        super().connection_lost(exc)
        self._forget()

    def cut(self) -> None:
        """Close at once, without sending what is not sent yet."""
        cut(self.transport)

    def _take_over(self, cycle: RequestResponseCycle) -> StreamConnection:
        stream = StreamConnection(
            self.loop,
            self.transport,
            self.connections,
            full=self.flow.write_paused,
            stall_seconds=self.stall_seconds,
        )
        # For uvicorn the response is complete, and the connection gone. Requests behind it are not answered.
        cycle.response_complete = True
        self.flow.resume_reading()  # to hear of the client's end
        self.connections.discard(self)
        self.pipeline.clear()
        self._forget()
        self.transport.set_protocol(stream)
        return stream

    def _forget(self) -> None:
        self._unwatch()
        self._stop_awaiting()
        self.scope = self.parser = None  # type: ignore[assignment]  # both know this object

    def _unwatch(self) -> None:
        if self._stall is not None:
            self._stall.over()
            self._stall = None

    def _await_head(self) -> None:
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_awaiting()  # it is here
        elif self._give_up is None:
            # In two steps, as bytes that came while this process was busy are read after the timers.
            half = self.stall_seconds / 2
            self._give_up = self.loop.call_later(half, self._await_rest, half)

    def _stop_awaiting(self) -> None:
        if self._give_up is not None:
            self._give_up.cancel()
            self._give_up = None

    def _await_rest(self, half: float) -> None:
        self._give_up = self.loop.call_later(half, self._too_late)

    def _too_late(self) -> None:
        self._give_up = None
        log.info("A request that does not come is not waited for", extra={"action": "cut"})
        if self._unframed:
            self._refuse(408, "The request did not come in time.")
        else:
            self.transport.close()  # opened in advance, as browsers do, and not needed

    def _refuse(self, status: int, detail: str) -> None:
        """Say what is wrong, where the app never saw a request, and close."""
        if self.transport.is_closing():
            return
        if self._is_next():
            self.transport.write(_problem(HTTPStatus(status), detail))
        # else: it would be taken for the answer to a request before, or for a part of it
        self.transport.close()

    def _is_next(self) -> bool:
        """Whether what comes now, a head or the rest of a request, is the first that waits for an answer."""
        cycle = self.cycle
        if cycle is None or cycle.response_complete:
            return True
        return cycle.more_body and not cycle.response_started and not self.pipeline


def taker(scope: Scope) -> Callable[[], StreamConnection]:
    """What takes a request's connection from the server when the head is sent: for a body in chunked coding.

    To the server, the response is complete then. Raises `RuntimeError` under a server that is not ours.
    """
    extensions: Mapping[str, Any] = scope.get("extensions") or {}
    if _EXTENSION not in extensions:
        raise RuntimeError("Streams write to their connections: serve the API by `tailrace api`.")
    take: Callable[[], StreamConnection] = extensions[_EXTENSION]
    return take


def _problem(status: HTTPStatus, detail: str) -> bytes:
    body = msgspec.json.encode(Problem(title=status.phrase, status=status.value, detail=detail))
    head = f"HTTP/1.1 {status.value} {status.phrase}\r\nContent-Type: {MEDIA_TYPE}\r\n"
    rest = f"Content-Length: {len(body)}\r\nCache-Control: no-store\r\nConnection: close\r\n\r\n"
    return (head + rest).encode() + body


def connection_with(stall_seconds: float) -> type[Connection]:
    """The class of connections with that bound; uvicorn makes them, and passes nothing on."""
    return type("Connection", (Connection,), {"stall_seconds": stall_seconds})
