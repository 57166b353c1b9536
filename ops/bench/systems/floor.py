"""The floor: one change stream, and its events written to raw sockets. No HTTP to speak of, no promises.

It checks no token, keeps no order, closes no seam, bounds no buffer: what Python, PyMongo and the kernel cost
before anything is promised.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any, cast

import msgspec
import uvloop
from pymongo import AsyncMongoClient

PORT, MONGODB_URL, DATABASE, _REDIS_URL = sys.argv[1:5]
_HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\n"
_CHUNK_BYTES = 64 * 1024

_encode = msgspec.json.Encoder(enc_hook=int).encode  # BSON's 64-bit integers are a subclass of int


def _frame(document: dict[str, Any]) -> bytes:
    document.pop("expires_at", None)
    return b"id: %b\nevent: delta\ndata: %b\n\n" % (document["_id"].encode(), _encode(document))


class _Reader(asyncio.Protocol):
    """One connection: a session's stream, or its replay."""

    def __init__(self, events: Any, streams: dict[str, set[asyncio.Transport]]) -> None:
        self._events = events
        self._streams = streams
        self._room = asyncio.Event()
        self._room.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        _, kind, self._session = data.split(b" ", 2)[1].decode().split("/")
        if kind == "stream":
            self._transport.write(_HEAD + b":\n\n")
            self._streams.setdefault(self._session, set()).add(self._transport)
        else:
            self._transport.write(_HEAD)
            self._replay = asyncio.create_task(self._write_history())

    def pause_writing(self) -> None:
        self._room.clear()

    def resume_writing(self) -> None:
        self._room.set()

    def connection_lost(self, error: Exception | None) -> None:
        self._room.set()
        if readers := self._streams.get(getattr(self, "_session", "")):
            readers.discard(self._transport)

    async def _write_history(self) -> None:
        frames: list[bytes] = []
        size = 0
        async for document in self._events.find({"session_id": self._session}).sort("seq", 1):
            frames.append(_frame(document))
            size += len(frames[-1])
            if size >= _CHUNK_BYTES:
                self._transport.write(b"".join(frames))
                frames, size = [], 0
                await self._room.wait()
        self._transport.write(b"".join(frames))
        self._transport.close()


async def _serve() -> None:
    client: AsyncMongoClient[dict[str, Any]] = AsyncMongoClient(MONGODB_URL)
    events = client[DATABASE]["events"]
    streams: dict[str, set[asyncio.Transport]] = {}
    inserts: list[dict[str, Any]] = [
        {"$match": {"operationType": "insert"}},
        {"$project": {"fullDocument": 1}},
    ]
    async with await events.watch(inserts, max_await_time_ms=1_000, batch_size=1_000) as changes:
        loop = asyncio.get_running_loop()
        await loop.create_server(lambda: _Reader(events, streams), "127.0.0.1", int(PORT), backlog=4096)
        while True:
            change = await changes.try_next()
            if change is not None:
                document = change["fullDocument"]
                frame = _frame(document)
                for transport in streams.get(document["session_id"], ()):
                    transport.write(frame)


if __name__ == "__main__":
    uvloop.run(_serve())
