"""Readiness tells of a change stream that does not move, and of its return."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from pathlib import Path

import httpx
import msgspec
from tests.e2e.stack import Stack, eventually

from tailrace.embedded import Mongod
from tailrace.settings import Settings


def test_readiness_goes_red_while_mongodb_hangs_and_green_after(settings: Settings, tmp_path: Path) -> None:
    server = Mongod(tmp_path / "data", log=tmp_path / "mongod.log")
    server.start()
    stack = Stack(msgspec.structs.replace(settings, mongodb_url=server.url))

    def readiness() -> dict[str, object]:
        answer = httpx.get(f"{stack.url}/readyz", timeout=20, trust_env=False)
        assert answer.status_code == (200 if answer.json()["ready"] else 503)
        return dict(answer.json())

    def said() -> str:
        return str(readiness()["change_stream"])

    with ExitStack() as ended:
        ended.callback(server.stop)
        ended.push(stack)  # only its API is started
        stack.start_api()
        assert said() == "ok"
        os.kill(server.child.pid or 0, signal.SIGSTOP)
        try:
            red = eventually(lambda: said() if said() != "ok" else "", timeout=60)
            assert red.startswith(("the change stream has not answered for", "no change stream is open"))
        finally:
            os.kill(server.child.pid or 0, signal.SIGCONT)
        eventually(lambda: readiness()["ready"], timeout=60)
