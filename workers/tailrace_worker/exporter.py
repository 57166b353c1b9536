"""The exporter: the process that gathers the reports of all workers and runs, and shows them to Prometheus.

A process beside the pool and not a thread in it: a fork of a process with threads may inherit a lock that
nobody ever lets go.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

import msgspec

from tailrace.errors import SettingError
from tailrace.exposition import Exposition
from tailrace.metrics import WORKER, absorb, settle
from tailrace.settings import Settings
from tailrace_worker.report import report_to
from tailrace_worker.worker import die_with_parent

__all__ = ["exported"]

REQUEST_SECONDS = 2.0  # for a scraper to say what it wants
MAX_REPORT_BYTES = 64 * 1024


@contextmanager
def exported(settings: Settings) -> Iterator[None]:
    """Show the metrics of this process's children at `/metrics`, on the settings' port if they name one.

    Raises `SettingError` when the port is taken.
    """
    if not settings.worker_metrics_port:
        yield
        return
    server = _listening(settings)
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with server, receiver, sender:
        child = _forked(server, receiver)
        server.server_close()
        receiver.close()
        report_to(sender)
        try:
            yield
        finally:
            report_to(None)
            os.kill(child, signal.SIGKILL)  # it keeps nothing
            os.waitpid(child, 0)


def _listening(settings: Settings) -> WSGIServer:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    server_class = type("_Server", (WSGIServer,), {"address_family": family})
    try:
        return make_server(
            settings.host, settings.worker_metrics_port, _shown(), server_class, handler_class=_Handler
        )
    except OSError as error:
        raise SettingError(
            f"TAILRACE_HOST={settings.host!r}, TAILRACE_WORKER_METRICS_PORT={settings.worker_metrics_port}: "
            f"cannot listen there ({error.strerror})."
        ) from error


def _forked(server: WSGIServer, receiver: socket.socket) -> int:
    parent = os.getpid()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()
    if child:
        return child
    try:
        # It shows how the workers end, so it outlives them; whoever stops a service may signal all processes.
        die_with_parent(signal.SIGKILL, parent)
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        settle()
        _serve(server, receiver)
    finally:
        os._exit(1)


def _serve(server: WSGIServer, receiver: socket.socket) -> None:
    receiver.setblocking(False)
    with selectors.DefaultSelector() as selector:
        selector.register(server, selectors.EVENT_READ)
        selector.register(receiver, selectors.EVENT_READ)
        while True:
            ready = {key.fileobj for key, _ in selector.select()}
            if receiver in ready:
                absorb(msgspec.json.decode(receiver.recv(MAX_REPORT_BYTES)))
            elif server in ready:  # after all reports: what is shown is up to date
                server.handle_request()


def _shown() -> Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]:
    exposition = Exposition(WORKER, process=False)

    def respond(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        if environ["PATH_INFO"] != "/metrics" or environ["REQUEST_METHOD"] != "GET":
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"Metrics are at /metrics.\n"]
        body, content_type = exposition.shown(environ.get("HTTP_ACCEPT", ""))
        start_response("200 OK", [("Content-Type", content_type), ("Cache-Control", "no-store")])
        return [body]

    return respond


class _Handler(WSGIRequestHandler):
    timeout = REQUEST_SECONDS  # it serves one at a time

    def log_message(self, format: str, *arguments: Any) -> None:
        """Not a line for each scrape."""
