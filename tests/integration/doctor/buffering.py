"""A proxy that does to streams what a badly configured one does: it hands on what it has when it is full."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

__all__ = ["buffering_proxy"]

FULL = 64 * 1024


@contextmanager
def buffering_proxy(upstream: int) -> Iterator[int]:
    """The port of a proxy for the server on the port `upstream`."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        threading.Thread(target=_serve, args=(server, upstream), daemon=True).start()
        yield int(server.getsockname()[1])


def _serve(server: socket.socket, upstream: int) -> None:
    with suppress(OSError):  # the server was closed
        while True:
            client, _ = server.accept()
            threading.Thread(target=_exchange, args=(client, upstream), daemon=True).start()


def _exchange(client: socket.socket, upstream: int) -> None:
    with client, socket.create_connection(("127.0.0.1", upstream)) as behind, suppress(OSError):
        behind.sendall(client.recv(FULL))
        held = b""
        while chunk := behind.recv(FULL):
            held += chunk
            whole = b"text/event-stream" not in held
            if whole or len(held) >= FULL:
                client.sendall(held)
                held = b""
        client.sendall(held)
