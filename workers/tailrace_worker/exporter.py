"""The exporter: the process that gathers the reports of all workers and runs, and shows them to Prometheus.

A process beside the pool and not a thread in it: a fork of a process with threads may inherit a lock that
nobody ever lets go.
"""

from __future__ import annotations

import logging
import os
import selectors
import signal
import socket
import sys
import time
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

__all__ = ["Exporter", "exported"]

log = logging.getLogger(__name__)

REQUEST_SECONDS = 2.0  # for a scraper to say what it wants
MAX_REPORT_BYTES = 64 * 1024
AGAIN_SECONDS = 1.0  # between two starts of the process

_STOP = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


@contextmanager
def exported(settings: Settings) -> Iterator[Exporter | None]:
    """Show the metrics of this process's children at `/metrics`, on the settings' port if they name one.

    Raises `SettingError` when the port is taken.
    """
    if not settings.worker_metrics_port:
        yield None
        return
    server = _listening(settings)
    receiver, sender = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with server, receiver, sender:
        exporter = Exporter(server, receiver)
        report_to(sender)
        try:
            yield exporter
        finally:
            report_to(None)
            exporter.end()


class Exporter:
    """The process that shows the metrics, and what it needs to be started again."""

    def __init__(self, server: WSGIServer, receiver: socket.socket) -> None:
        self._server = server
        self._receiver = receiver
        self._child: int | None = None
        self._due = 0.0  # time.monotonic(), of the next start
        self._start()

    def tend(self) -> float | None:
        """Start the process again if it has ended; call it when a child has, as SIGCHLD says.

        What it had counted is lost: to Prometheus the counters begin again. What was reported meanwhile is
        not. Returns when to call it again (`time.monotonic()`) if it is too soon for another start.
        """
        if self._child is not None and os.waitpid(self._child, os.WNOHANG)[0]:
            log.warning("the metrics' process ended and starts again", extra={"action": "export"})
            self._child = None
        if self._child is not None:
            return None
        if time.monotonic() < self._due:
            return self._due
        self._start()
        return None

    def forget(self) -> None:
        """In a worker: close what is the exporter's alone. The port must be free when it is gone."""
        self._server.server_close()
        self._receiver.close()

    def end(self) -> None:
        """End the process; it keeps nothing."""
        if self._child is not None:
            os.kill(self._child, signal.SIGKILL)
            os.waitpid(self._child, 0)

    def _start(self) -> None:
        self._child = _forked(self._server, self._receiver)
        self._due = time.monotonic() + AGAIN_SECONDS


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
    # Blocked around the fork: a wish to end must not meet the child while it has this process's handlers.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _STOP)
    child = os.fork()
    if child:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return child
    try:
        signal.set_wakeup_fd(-1)
        # It shows how the workers end, so it outlives them; whoever stops a service may signal all processes.
        for number in _STOP:
            signal.signal(number, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        die_with_parent(signal.SIGKILL, parent)
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
