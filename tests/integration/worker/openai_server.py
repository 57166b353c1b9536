"""A small server that speaks the streaming protocol of OpenAI's chat completions, over real HTTP.

It decides by the offline model's rules, so that the two can be compared event by event.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from uuid import uuid4

from langchain_core.messages import convert_to_messages

from tailrace_worker.offline_rules import Reply, decide

__all__ = ["openai_server"]


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def do_POST(self) -> None:
        request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append(request)
        tools = {tool["function"]["name"] for tool in request.get("tools", ())}
        messages = [message for message in request["messages"] if message["role"] != "system"]
        reply = decide(_named(convert_to_messages(messages)), tools)
        if reply.error and not reply.text:
            self._refuse(reply.error)
        else:
            self._stream(request, reply)

    def _refuse(self, message: str) -> None:
        body = json.dumps({"error": {"message": message, "type": "invalid_request_error"}}).encode()
        self.send_response(400)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _stream(self, request: dict[str, Any], reply: Reply) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Connection", "close")
        self.end_headers()
        head = {
            "id": f"chatcmpl-{uuid4().hex}",
            "object": "chat.completion.chunk",
            "created": 1,
            "model": "gpt-x",
        }
        for delta in _deltas(reply):
            self._frame({**head, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]})
        reason = "tool_calls" if reply.tool_calls else "stop"
        self._frame({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]})
        if request.get("stream_options", {}).get("include_usage"):
            usage = {"prompt_tokens": 7, "completion_tokens": 5, "total_tokens": 12}
            self._frame({**head, "choices": [], "usage": usage})
        self.wfile.write(b"data: [DONE]\n\n")
        self.close_connection = True

    def _frame(self, chunk: dict[str, Any]) -> None:
        self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())

    def log_message(self, format: str, *args: Any) -> None:
        """Quiet."""


def _named(messages: list[Any]) -> list[Any]:
    """The protocol leaves the tool's name out of its result; the call has it."""
    names = {call["id"]: call["name"] for message in messages for call in getattr(message, "tool_calls", ())}
    for message in messages:
        if message.type == "tool":
            message.name = names[message.tool_call_id]
    return messages


def _deltas(reply: Reply) -> Iterator[dict[str, Any]]:
    yield {"role": "assistant", "content": "" if not reply.tool_calls else None}
    for token in re.findall(r"\s*\S+", reply.text):
        yield {"content": token}
    for index, call in enumerate(reply.tool_calls):
        function = {"name": call["name"], "arguments": ""}
        yield {"tool_calls": [{"index": index, "id": call["id"], "type": "function", "function": function}]}
        for part in re.findall(r"\s*\S+", json.dumps(call["args"], ensure_ascii=False)):
            yield {"tool_calls": [{"index": index, "function": {"arguments": part}}]}


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[dict[str, Any]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


@contextmanager
def openai_server() -> Iterator[_Server]:
    """The server, running; `url` is its base URL and `requests` what it was sent."""
    with _Server() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
