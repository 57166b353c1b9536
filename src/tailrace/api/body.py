"""The request's body: JSON, said to be JSON, here in time, and of a shape that costs the others nothing."""

from __future__ import annotations

import asyncio
from typing import Any

from litestar.connection import ASGIConnection
from litestar.enums import ScopeType
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler
from litestar.types import ASGIApp, HTTPRequestEvent, Receive, Scope, Send

from tailrace.live.slots import Slots

__all__ = ["BodyReader", "json_only"]

BODY_SECONDS = 60.0  # for a whole body to come: 4 MB at half a megabit a second
BODIES_OF_A_USER = 4  # read at once; the next wait unread, in the sender's buffers
MAX_VALUES = 10_000  # JSON values and keys: a million empty lists would hold up every stream for two seconds


async def json_only(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard: refuse a body of another content type.

    A form that a foreign page submits carries no JSON type, so this is a wall against forged requests too.

    Raises `HTTPException` (415).
    """
    headers = connection.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    given = headers.getall("content-type", [])
    media_type, *parameters = (given[0] if len(given) == 1 else "").split(";", 1)
    charset = "".join(parameters).strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise HTTPException(
            detail="The body must be JSON in UTF-8, with Content-Type: application/json.",
            status_code=415,
            headers={"Accept": "application/json"},
        )


class BodyReader:
    """Middleware: reads a body as a whole before anybody parses it, a user's few at a time.

    Raises `HTTPException`: 408 when it does not come in time, 413 when it has more than `max_bytes` or
    `MAX_VALUES`.
    """

    def __init__(self, app: ASGIApp, *, max_bytes: int) -> None:
        self._app = app
        self._max_bytes = max_bytes
        self._slots = Slots(each=BODIES_OF_A_USER)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on with its body read."""
        if scope["type"] == ScopeType.HTTP and _has_body(scope):
            receive = await self._read(scope, receive)
        await self._app(scope, receive, send)

    async def _read(self, scope: Scope, receive: Receive) -> Receive:
        if _announced(scope) > self._max_bytes:
            detail = f"The body has more than {self._max_bytes:,} bytes."
            raise HTTPException(detail=detail, status_code=413, headers={"Connection": "close"})
        user = getattr(scope.get("user"), "user", "")  # those of nobody are few together
        try:
            async with self._slots.of(user), asyncio.timeout(BODY_SECONDS):
                events = [await _whole(receive, self._max_bytes)]
        except TimeoutError as error:
            detail = f"The body did not come within {BODY_SECONDS:.0f} seconds."
            raise HTTPException(detail=detail, status_code=408, headers={"Connection": "close"}) from error

        async def received() -> Any:
            return events.pop() if events else await receive()

        return received


def _has_body(scope: Scope) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value != b"0")
        for name, value in scope["headers"]
    )


def _announced(scope: Scope) -> int:
    # The parser has refused what is no number.
    return max((int(value) for name, value in scope["headers"] if name == b"content-length"), default=0)


async def _whole(receive: Receive, max_bytes: int) -> HTTPRequestEvent:
    """All of the body as one event. What follows a refusal is thrown away by the server as it comes."""
    parts: list[bytes] = []
    size, values, more = 0, _Values(), True
    while more:
        event = await receive()
        if event["type"] != "http.request":
            raise HTTPException(detail="The body ended early.", status_code=400)
        parts.append(part := event.get("body", b""))
        size += len(part)
        if size > max_bytes:
            raise HTTPException(detail=f"The body has more than {max_bytes:,} bytes.", status_code=413)
        if values.counted_with(part) > MAX_VALUES:
            raise HTTPException(detail=f"The body has more than {MAX_VALUES:,} values.", status_code=413)
        more = event.get("more_body", False)
    return {"type": "http.request", "body": b"".join(parts), "more_body": False}


class _Values:
    """Counts the values and keys of JSON, at least as many as there are, without parsing it."""

    def __init__(self) -> None:
        self._count = 0
        self._in_string = False
        self._escape = b""  # backslashes at the end of what came last, whose meaning is to come

    def counted_with(self, part: bytes) -> int:
        """How many there are with what comes next."""
        text = self._escape + part
        whole = text.rstrip(b"\\")
        self._escape = text[len(whole) :]
        quoted = whole.replace(b"\\\\", b"").replace(b'\\"', b"").split(b'"')
        bare = b"".join(quoted[self._in_string :: 2])
        self._count += sum(map(bare.count, (b",", b":", b"[", b"{")))
        self._in_string ^= len(quoted) % 2 == 0
        return self._count
