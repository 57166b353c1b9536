"""A receiver of OTLP over HTTP in Langfuse's place: takes spans as protobuf, or misbehaves as it is told."""

from __future__ import annotations

import gzip
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Literal

import msgspec
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

__all__ = ["Receiver", "Span", "receiver"]

_PATH = "/api/public/otel/v1/traces"


class Span(msgspec.Struct, frozen=True, kw_only=True):
    """One span, as it came."""

    trace_id: str
    span_id: str
    parent_id: str  # empty for a root
    name: str
    start: int  # nanoseconds since the epoch, like `end`
    end: int
    links: tuple[str, ...]  # span ids
    attributes: dict[str, Any]

    @property
    def kind(self) -> str:
        """Langfuse's type of the observation."""
        return str(self.attributes["langfuse.observation.type"])

    @property
    def level(self) -> str:
        return str(self.attributes.get("langfuse.observation.level", "DEFAULT"))

    @property
    def said(self) -> str:
        """Langfuse's status message."""
        return str(self.attributes.get("langfuse.observation.status_message", ""))

    def metadata(self, name: str) -> Any:
        """One value of the observation's metadata; None if it has none of that name."""
        text = self.attributes.get(f"langfuse.observation.metadata.{name}")
        return None if text is None else json.loads(text)


class Receiver(ThreadingHTTPServer):
    """`mode` says what it does with spans: take them, answer 500, or never answer."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.mode: Literal["take", "refuse", "hang"] = "take"
        self.spans: list[Span] = []
        self.authorizations: set[str] = set()
        self.requests = 0  # for spans, in any mode
        self.released = threading.Event()  # ends what hangs

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def of(self, trace_id: str) -> dict[str, Span]:
        """The spans of a trace by id; each must have come once."""
        found = [span for span in list(self.spans) if span.trace_id == trace_id]
        assert len({span.span_id for span in found}) == len(found)
        return {span.span_id: span for span in found}


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == _PATH:
            self.server.requests += 1
            self.server.authorizations.add(self.headers["Authorization"])
            if self.server.mode == "hang":
                self.server.released.wait(60)
                return
            if self.server.mode == "take":
                unzipped = gzip.decompress(body) if self.headers.get("Content-Encoding") == "gzip" else body
                self.server.spans += _spans(unzipped)
        self._answer(500 if self.server.mode == "refuse" else 200)

    def do_GET(self) -> None:
        self._answer(200)

    def _answer(self, status: int) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _spans(body: bytes) -> Iterator[Span]:
    for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    links=tuple(link.span_id.hex() for link in span.links),
                    attributes={found.key: _value(found.value) for found in span.attributes},
                )


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(item) for item in value.array_value.values]
    return getattr(value, kind)


@contextmanager
def receiver() -> Iterator[Receiver]:
    """A receiver on a free port of this machine."""
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.released.set()
            server.shutdown()
            thread.join()
