"""The API's server: uvicorn, with bounded socket buffers, whose shutdown ends streams first and in time."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import socket
import threading

import uvicorn
from litestar import Litestar

from tailrace.api.app import create_app
from tailrace.api.connection import Connection, connection_with
from tailrace.api.services import Services
from tailrace.api.stream_connection import StreamConnection
from tailrace.errors import SettingError
from tailrace.mongo import end_task
from tailrace.settings import Settings

__all__ = ["serve"]

log = logging.getLogger(__name__)

BACKLOG = 4_096  # connections that wait to be accepted: a restart brings all readers back at once
SEND_BUFFER_BYTES = 256 * 1024  # in the kernel, per connection; Linux doubles it and would grow it to 4 MB
UNACKNOWLEDGED_MS = 30_000  # then a connection whose peer is silent is cut
GARBAGE_THRESHOLDS = (10_000, 50, 20)  # for `gc.set_threshold`: objects, and rounds of the younger
LEAVE_SECONDS = 2.0  # after the time to drain: then the process goes, whatever still hangs
LAST_SECONDS = 0.5  # of the time to drain: for requests to notice that their connection was cut


def serve(settings: Settings) -> None:
    """Run the API until SIGTERM or SIGINT.

    Raises `SettingError` when the address cannot be listened on, or no token could be checked.
    """
    app = create_app(settings)
    _collect_seldom()
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    log.info("Listening", extra={"action": "listen", "url": f"http://{host}:{port}/"})
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=settings.drain_seconds,
        http=connection_with(settings.send_stall_seconds),
        ws="none",
    )
    # MongoDB's driver, for one, waits 20 s for a server that hangs before it closes.
    backstop = threading.Timer(settings.drain_seconds + LEAVE_SECONDS, _leave)
    backstop.daemon = True
    try:
        with listener:
            _Server(config, app, backstop).run(sockets=[listener])
    finally:
        backstop.cancel()


def _collect_seldom() -> None:
    # Open streams are many small objects that live for long: to look through them as often as Python does
    # takes a good part of what opening them costs, and stops all readers meanwhile.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE_THRESHOLDS)


class _Server(uvicorn.Server):
    """Ends the streams before it waits for connections to close: an open stream never does by itself."""

    def __init__(self, config: uvicorn.Config, app: Litestar, backstop: threading.Timer) -> None:
        super().__init__(config)
        self._backstop = backstop
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._backstop.start()
        services: Services | None = getattr(self._app.state, "services", None)
        if services is not None:
            services.live.drain()
        # Later, uvicorn cancels the requests that are left; none is kept waiting by a client that reads
        # nothing, and so never takes the end of its stream.
        patience = (self.config.timeout_graceful_shutdown or 0) - LAST_SECONDS
        cutting = asyncio.get_running_loop().call_later(patience, self._cut)
        await super().shutdown(sockets)
        cutting.cancel()
        # asyncio.run would cancel them once more, and wait for ever where the driver swallows that.
        await asyncio.gather(*(end_task(task) for task in tuple(self.server_state.tasks)))

    def _cut(self) -> None:
        for connection in tuple(self.server_state.connections):
            if isinstance(connection, (Connection, StreamConnection)):
                connection.cut()


def _leave() -> None:
    log.warning("Shutting down takes too long; leaving without", extra={"action": "leave"})
    logging.shutdown()
    os._exit(0)  # nothing is lost: what the API knows is in MongoDB


def _listen(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        if hasattr(socket, "TCP_USER_TIMEOUT"):  # Linux; accepted connections inherit both
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, UNACKNOWLEDGED_MS)
        listener.bind((settings.host, settings.port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingError(
            f"TAILRACE_HOST={settings.host!r}, TAILRACE_PORT={settings.port}: cannot listen there "
            f"({error.strerror}). Choose another port with --port."
        ) from error
    return listener
