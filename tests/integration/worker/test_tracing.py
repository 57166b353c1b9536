"""Langfuse tracing against a local receiver of OTLP over HTTP."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import msgspec
import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from tests.integration.worker.scene import Scene, types

from tailrace.mongo import Database
from tailrace.settings import Settings


class _Receiver(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.spans: list[Any] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: _Receiver

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/public/otel/v1/traces":
            if self.headers.get("Content-Encoding") == "gzip":
                import gzip

                body = gzip.decompress(body)
            request = ExportTraceServiceRequest.FromString(body)
            self.server.spans += [
                span
                for found in request.resource_spans
                for scope in found.scope_spans
                for span in scope.spans
            ]
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


@contextmanager
def receiver() -> Iterator[_Receiver]:
    with _Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


def traced(settings: Settings, url: str) -> dict[str, Any]:
    return {
        "langfuse_enabled": True,
        "langfuse_public_key": f"pk-{settings.mongodb_db}",
        "langfuse_secret_key": "sk-test",
        "langfuse_base_url": url,
    }


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of OpenTelemetry's exporter, not ours to mend
async def test_the_spans_of_a_run_carry_its_trace_id(settings: Settings, database: Database) -> None:
    with receiver() as server:
        scene = Scene(settings, database, **traced(settings, server.url))
        events = await scene.perform("what is 2+2?")
        run_id = events[0].run_id
        assert {event.trace_id for event in events} == {run_id}
        assert {message.trace_id for message in await scene.messages()} == {run_id}
        assert {span.trace_id.hex() for span in server.spans} == {run_id}
        spans = {span.span_id.hex(): span for span in server.spans}
        named = {
            event.event_type: spans[event.observation_id].name for event in events if event.observation_id
        }
        assert named["tool_end"] == "calculator"
        assert named["message_delta"] == "OfflineModel"
        users = [a.value.string_value for span in server.spans for a in span.attributes if a.key == "user.id"]
        assert users == ["alice"] * len(server.spans)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
async def test_a_host_that_is_not_there_holds_no_run(settings: Settings, database: Database) -> None:
    with receiver() as server:
        url = server.url
    scene = Scene(settings, database, **traced(settings, url))
    started = time.monotonic()
    assert types(await scene.perform("hello"))[-1] == "finish"
    assert time.monotonic() - started < 8


def test_nothing_of_langfuse_is_imported_while_tracing_is_off() -> None:
    code = "import sys, tailrace_worker.job, tailrace_worker.worker; print('langfuse' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"
    assert not msgspec.structs.replace(Settings(), langfuse_enabled=False).tracing
