"""The response that carries a feed: plain ASGI, one `send` for whatever is ready, no task per frame."""

from __future__ import annotations

import asyncio
import logging
from contextlib import ExitStack, aclosing
from typing import Any

from litestar.response.base import ASGIResponse
from litestar.types import Receive, Scope, Send

from tailrace.live import Feed, Live, Subscription
from tailrace.live.sse import notice, retry

__all__ = ["EventStream"]

log = logging.getLogger(__name__)

_HEADERS = {
    "cache-control": "no-store",
    "x-accel-buffering": "no",  # nginx would hold frames back until its buffer is full
    "tailrace-protocol": "1",
}


class EventStream(ASGIResponse):
    """Sends `opening`, then the feed's chunks until it ends or the reader leaves; then closes `held`."""

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
        """Send the head, then `send_body`."""
        with self._held:
            await super().__call__(scope, receive, send)

    async def send_body(self, send: Send, receive: Receive) -> None:
        """Stream; a failure on the way asks the reader to connect again, for the status was sent long ago."""
        watch = asyncio.create_task(_until_gone(receive, self._feed.subscription))
        try:
            await send(_body(self._opening))
            with self._live.opened(self._feed):
                async with aclosing(self._feed.chunks()) as chunks:
                    async for chunk in chunks:
                        await send(_body(chunk))
        except Exception:
            log.exception("A stream failed", extra={"action": "stream"})
            await send(_body(notice("stream.rotate", {"reason": "error"})))
        finally:
            watch.cancel()
        await send(_body(b"", more=False))


def _body(chunk: bytes, *, more: bool = True) -> Any:
    return {"type": "http.response.body", "body": chunk, "more_body": more}


async def _until_gone(receive: Receive, subscription: Subscription) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    subscription.close("gone")
