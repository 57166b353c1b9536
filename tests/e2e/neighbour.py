"""A user who asks for as much as he can, as a process of its own: `python -m tests.e2e.neighbour`.

Over many connections at once it sends the same request again and again, and throws away what comes back. On
standard input it takes the address and the requests; it runs until it is killed.
"""

from __future__ import annotations

import asyncio
import itertools
import sys
from contextlib import suppress

import msgspec

__all__ = ["Neighbour"]

PATIENCE = 0.05  # seconds between attempts, after a refusal: he does not honour Retry-After


class Neighbour(msgspec.Struct, frozen=True, kw_only=True):
    """What he does."""

    port: int
    requests: list[bytes]  # each with `Connection: close`
    connections: int  # at once


async def _ask(neighbour: Neighbour, request: bytes) -> None:
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection("127.0.0.1", neighbour.port, limit=1 << 20)
            try:
                writer.write(request)
                await writer.drain()
                status = await reader.read(12)
                while await reader.read(1 << 18):
                    pass
            finally:
                writer.close()
            if status.endswith(b" 200"):
                continue
        await asyncio.sleep(PATIENCE)


async def _main(neighbour: Neighbour) -> None:
    requests = itertools.islice(itertools.cycle(neighbour.requests), neighbour.connections)
    await asyncio.gather(*(_ask(neighbour, request) for request in requests))


if __name__ == "__main__":
    asyncio.run(_main(msgspec.msgpack.decode(sys.stdin.buffer.read(), type=Neighbour)))
