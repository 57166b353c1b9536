"""The API's server: uvicorn, with bounded socket buffers, whose shutdown ends the streams first."""

from __future__ import annotations

import logging
import socket

import uvicorn
from litestar import Litestar

from tailrace.api.app import create_app
from tailrace.api.services import Services
from tailrace.errors import SettingError
from tailrace.settings import Settings

__all__ = ["serve"]

log = logging.getLogger(__name__)

BACKLOG = 4_096  # connections that wait to be accepted: a restart brings all readers back at once
SEND_BUFFER_BYTES = 256 * 1024  # in the kernel, per connection; Linux doubles it and would grow it to 4 MB
UNACKNOWLEDGED_MS = 30_000  # then a connection whose peer is silent is cut
GRACE_SECONDS = 10  # for requests that are no streams, at shutdown


def serve(settings: Settings) -> None:
    """Run the API until SIGTERM or SIGINT.

    Raises `SettingError` when the address cannot be listened on, or no token could be checked.
    """
    app = create_app(settings)
    listener = _listen(settings)
    host, port = listener.getsockname()[:2]
    log.info("Listening", extra={"action": "listen", "url": f"http://{host}:{port}/"})
    config = uvicorn.Config(
        app,
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=GRACE_SECONDS,
        ws="none",
    )
    with listener:
        _Server(config, app).run(sockets=[listener])


class _Server(uvicorn.Server):
    """Ends the streams before it waits for connections to close: an open stream never does by itself."""

    def __init__(self, config: uvicorn.Config, app: Litestar) -> None:
        super().__init__(config)
        self._app = app

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        services: Services | None = getattr(self._app.state, "services", None)
        if services is not None:
            services.live.drain()
        await super().shutdown(sockets)


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
