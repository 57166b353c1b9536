"""The proxies: a process between everything and the replica set, and Valkey, which can break each way.

A connection belongs to whoever made it: a member of the set (with test commands on, it names its own port in
its first message, for proxies like this one), or a client, by its `appName`. Told over a control port, in one
JSON line a command, what to do with the connections of whom to which server.
"""

from __future__ import annotations

import asyncio
import json
import re
import socket
import struct
import sys
from contextlib import suppress
from typing import Any, cast

__all__ = ["Link", "Proxy"]

SLOW_SECONDS = 0.1  # that a slow connection holds each piece back, each way
_MEMBER = re.compile(rb"hostInfo\0.{4}[^\0]*:(\d+)\0", re.DOTALL)
_CLIENT = re.compile(rb"application\0.{4}\x02name\0.{4}([^\0]*)\0", re.DOTALL)


class Proxy:
    """One server behind a port of its own; `modes` holds what is wrong now, by who connects."""

    def __init__(self, name: str, port: int, members: dict[int, str]) -> None:
        self.name = name
        self.links: set[Link] = set()
        self.modes: dict[str, str] = {}
        self._port = port  # of the server itself
        self._members = members

    def accept(self) -> asyncio.Protocol:
        """The near end of a new connection."""
        return Link(self).near

    async def dial(self, far: End) -> None:
        """Connect `far` to the server. Raises `OSError`."""
        await asyncio.get_running_loop().create_connection(lambda: far, "127.0.0.1", self._port)

    def who(self, first: bytes) -> str:
        """Who sent `first`, the beginning of a connection."""
        if found := _MEMBER.search(first):
            return self._members.get(int(found[1]), "member")
        found = _CLIENT.search(first)
        return found[1].decode() if found else "client"

    def command(self, mode: str, who: list[str] | None) -> int:
        """Break, or heal, the connections of `who` (None: of all). Returns how many there are now."""
        chosen = [link for link in self.links if link.who and (who is None or link.who in who)]
        if mode in ("open", "freeze", "slow", "refuse"):
            for name in who if who is not None else ("*",):
                self.modes[name] = mode
            if mode == "open" and who is None:
                self.modes.clear()
        for link in chosen:
            link.turn(mode)
        return len(chosen)

    def mode(self, who: str) -> str:
        """What is wrong with new connections of `who`."""
        return self.modes.get(who, self.modes.get("*", "open"))


class Link:
    """One connection: its near end, which somebody made, and its far end, at the server."""

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.who = ""  # not known before the first bytes
        self.mode = "open"
        self.near, self.far = End(self), End(self)
        self.near.other, self.far.other = self.far, self.near
        self._dialling: asyncio.Task[None] | None = None

    def made(self, end: End) -> None:
        """An end is connected."""
        if end is self.near:
            self.proxy.links.add(self)
            self._dialling = asyncio.create_task(self._dial())

    async def _dial(self) -> None:
        try:
            await self.proxy.dial(self.far)
        except OSError:
            self.near.abort()
        else:
            self.far.flush()

    def heard(self, end: End, data: bytes) -> None:
        """Bytes came in at `end`."""
        if end is self.near and not self.who:
            self.who = self.proxy.who(data)
            self.turn(self.proxy.mode(self.who))
        if self.mode == "dead" or (self.mode == "half" and end is self.far):
            return
        if self.mode == "slow":
            end.pause()
            asyncio.get_running_loop().call_later(SLOW_SECONDS, self._late, end, data)
        else:
            end.other.send(data)

    def _late(self, end: End, data: bytes) -> None:
        end.other.send(data)
        if self.mode != "freeze":
            end.resume()

    def turn(self, mode: str) -> None:
        """Break in this way from now on, or heal. What was declared dead stays dead."""
        if mode in ("reset", "refuse"):
            self.near.abort()
            self.far.abort()
        elif self.mode in ("dead", "half"):
            if mode == "open" and self.mode == "half":
                self.far.abort()
        else:
            self.mode = mode
            for end in (self.near, self.far):
                end.hold(held=mode == "freeze")
            if mode == "half":
                self.near.finish()

    def lost(self, end: End) -> None:
        """An end is gone; the other follows, unless it must not know."""
        self.proxy.links.discard(self)
        if self.mode != "half":
            end.other.close()
        elif end is self.near and not self.far.closed:
            self.proxy.links.add(self)  # its far end stays until the healing


class End(asyncio.Protocol):
    """One end of a connection."""

    def __init__(self, link: Link) -> None:
        self.other: End = self
        self._link = link
        self._transport: asyncio.Transport | None = None
        self._unsent: list[bytes] = []  # before it was connected, or while it is held
        self._held = False
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        sock: socket.socket = transport.get_extra_info("socket")
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.closed:
            self._transport.abort()
        self._link.made(self)

    def data_received(self, data: bytes) -> None:
        self._link.heard(self, data)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._link.lost(self)

    def pause_writing(self) -> None:
        self.other.pause()

    def resume_writing(self) -> None:
        if not self._held:
            self.other.resume()

    def send(self, data: bytes) -> None:
        if self._transport is None or self._held:
            self._unsent.append(data)
        elif not self.closed:
            self._transport.write(data)

    def flush(self) -> None:
        if self._transport is not None and not self._held:
            for data in self._unsent:
                self._transport.write(data)
            self._unsent.clear()

    def hold(self, *, held: bool) -> None:
        if held != self._held:
            self._held = held
            self.pause() if held else self.resume()
            self.flush()

    def pause(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.pause_reading()

    def resume(self) -> None:
        if self._transport is not None and not self.closed:
            self._transport.resume_reading()

    def finish(self) -> None:
        if self._transport is not None and not self.closed and self._transport.can_write_eof():
            self._transport.write_eof()

    def close(self) -> None:
        self.closed = True
        if self._transport is not None:
            self._transport.close()

    def abort(self) -> None:
        """Close with a reset, which is what a dead process's kernel answers."""
        self.closed = True
        if self._transport is not None:
            sock: socket.socket = self._transport.get_extra_info("socket")
            with suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._transport.abort()


async def _serve(plan: dict[str, Any]) -> None:
    """`plan`: `control`, a port; `proxies`, by name the port to listen on and the server's."""
    loop = asyncio.get_running_loop()
    members = {port: name for name, (_, port) in plan["proxies"].items()}
    proxies = {name: Proxy(name, port, members) for name, (_, port) in plan["proxies"].items()}
    for name, (listen, _) in plan["proxies"].items():
        await loop.create_server(proxies[name].accept, "127.0.0.1", listen)

    async def obey(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            order = json.loads(line)
            count = sum(proxies[name].command(order["mode"], order["who"]) for name in order["at"])
            writer.write(b"%d\n" % count)
        writer.close()

    control = await asyncio.start_server(obey, "127.0.0.1", plan["control"])
    await control.serve_forever()


if __name__ == "__main__":
    asyncio.run(_serve(json.loads(sys.argv[1])))
