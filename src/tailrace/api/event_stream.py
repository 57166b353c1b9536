"""The response that carries a feed: its head by ASGI, its body by the feed itself."""

from __future__ import annotations

from contextlib import ExitStack

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from tailrace.api.connection import taker
from tailrace.live import Feed, Live
from tailrace.live.sse import retry

__all__ = ["EventStream"]

_HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold frames back until its buffer is full
    "tailrace-protocol": "1",
    "connection": "close",  # behind the stream: it is no uvicorn's any more by then
}


class EventStream(ASGIResponse):
    """Sends `opening`, then lets the feed write to the connection; closes `held` when it has ended.

    The request is over when the feed has begun.
    """

    _should_set_content_length = False

    def __init__(
        self, live: Live, feed: Feed, *, opening: bytes, headers: dict[str, str], held: ExitStack
    ) -> None:
        super().__init__(media_type="text/event-stream", headers={**_HEADERS, **headers})
        self._live = live
        self._feed = feed
        self._opening = retry() + opening
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head and begin."""
        with self._held:
            take_over = taker(scope)
            await self.start_response(send)
            connection = take_over()
            connection.write(self._opening)
            held = self._held.pop_all()
            self._live.open(self._feed, connection, then=held.close)
            connection.carry(self._feed)
