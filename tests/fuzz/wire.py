"""HTTP/1.1 by hand: bytes that no client library would send, and what comes back, byte for byte."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any

import msgspec

__all__ = ["Answer", "Headers", "exchange", "opened", "request"]

Headers = Sequence[tuple[str, str | bytes]]

LARGEST = 32 * 1024 * 1024  # of an answer that is read to its end


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the server said before it closed; `status` 0 when it closed, or was silent, without a word."""

    status: int
    headers: dict[str, str]  # names in lower case
    body: bytes
    ended: bool  # the server closed; else the time was up

    @property
    def json(self) -> Any:
        """The body as JSON. Raises `ValueError`."""
        return json.loads(self.body)


def request(method: str, target: str | bytes, headers: Headers = (), body: bytes = b"") -> bytes:
    """A request with its `Content-Length`, unless `headers` frame the body themselves; it asks to close."""
    names = {name.lower() for name, _ in headers}
    lines = [method.encode() + b" " + _raw(target) + b" HTTP/1.1", b"Host: 127.0.0.1", b"Connection: close"]
    lines += [name.encode() + b": " + _raw(value) for name, value in headers]
    if body and not names & {"content-length", "transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join(lines) + b"\r\n\r\n" + body


def _raw(text: str | bytes) -> bytes:
    return text if isinstance(text, bytes) else text.encode("utf-8")


async def opened(port: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A connection to the server."""
    return await asyncio.open_connection("127.0.0.1", port, limit=LARGEST)


async def exchange(port: int, parts: Iterable[bytes], *, half_close: bool, within: float) -> Answer:
    """Send `parts` and read until the server closes, for at most `within` seconds.

    `half_close` says that nothing more comes, as a client does whose body is shorter than it announced.
    """
    reader, writer = await opened(port)
    try:
        sending = asyncio.create_task(_send(writer, parts, half_close))
        raw, ended = await _read(reader, within)
        sending.cancel()
        with suppress(asyncio.CancelledError, OSError):
            await sending
        return _parsed(raw, ended)
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _send(writer: asyncio.StreamWriter, parts: Iterable[bytes], half_close: bool) -> None:
    for part in parts:
        writer.write(part)
        await writer.drain()
    if half_close:
        writer.write_eof()


async def _read(reader: asyncio.StreamReader, within: float) -> tuple[bytes, bool]:
    raw = bytearray()
    try:
        async with asyncio.timeout(within):
            while chunk := await reader.read(65_536):
                raw += chunk
                assert len(raw) <= LARGEST
    except TimeoutError:
        return bytes(raw), False
    except OSError:  # reset: it refused while we were still sending
        return bytes(raw), True
    return bytes(raw), True


def _parsed(raw: bytes, ended: bool) -> Answer:
    while raw.startswith(b"HTTP/1.1 100 "):
        raw = raw.partition(b"\r\n\r\n")[2]
    head, _, body = raw.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    status = int(first.split(" ")[1]) if first.startswith("HTTP/1.1 ") else 0
    headers = {name.strip().lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    if headers.get("transfer-encoding") == "chunked":
        body = _dechunked(body)
    elif "content-length" in headers:
        body = body[: int(headers["content-length"])]
    return Answer(status=status, headers=headers, body=body, ended=ended)


def _dechunked(body: bytes) -> bytes:
    whole = bytearray()
    while body:
        size, _, body = body.partition(b"\r\n")
        length = int(size or b"0", 16)
        if not length:
            break
        whole += body[:length]
        body = body[length + 2 :]
    return bytes(whole)
