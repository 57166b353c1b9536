"""`tailrace dev`: one command, one terminal; nothing is left behind."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from tests.e2e.stack import eventually

from tailrace.devserver import DevServer
from tailrace.settings import Settings, variable

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class Dev:
    """A running `tailrace dev`, and what its terminal shows."""

    def __init__(self, process: subprocess.Popen[bytes], terminal: Path) -> None:
        self.process = process
        self._terminal = terminal

    @property
    def shown(self) -> str:
        return self._terminal.read_text("utf-8")

    def wait_for(self, pattern: str) -> re.Match[str]:
        """What the terminal shows, once it does; fail if the command ends before."""

        def found() -> re.Match[str] | None:
            match = re.search(pattern, self.shown, re.MULTILINE)
            assert match or self.process.poll() is None, self.shown
            return match

        match = eventually(found, timeout=60)
        assert match
        return match

    def children(self) -> dict[str, int]:
        """The ids of its child processes, by a word of their command line."""
        words = ("mongod", "valkey-server", "tailrace_worker", "tailrace.cli", "rq_dashboard")
        return {word: pid for pid in descendants(self.process.pid) for word in words if word in command(pid)}


@contextmanager
def running(place: Path, *options: str, **settings: str) -> Iterator[Dev]:
    kept = {name: value for name, value in os.environ.items() if name not in SETTINGS}
    terminal = place / "terminal"
    with terminal.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tailrace.cli", "dev", "--port", "0", "--data-dir", "data", *options],
            cwd=place,
            env={**kept, **settings},
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        yield Dev(process, terminal)
    finally:
        process.terminate()
        process.wait(timeout=60)


SETTINGS = {variable(field) for field in Settings.__struct_fields__}


@linux
def test_dev_runs_all_names_and_restarts_the_dead_and_leaves_nothing(tmp_path: Path) -> None:
    with running(tmp_path, "--workers", "1", "--dashboard") as dev:
        queues = dev.wait_for(r"^The queue's dashboard: (http://127\.0\.0\.1:\d+)/$")[1]
        url = dev.wait_for(r"^Tailrace is ready: (http://127\.0\.0\.1:\d+)/$")[1]
        assert dev.shown.splitlines()[-1] == f"Tailrace is ready: {url}/"
        assert httpx.get(f"{url}/healthz", trust_env=False).status_code == 200
        assert httpx.get(f"{url}/dev/token", trust_env=False).json()["token"]

        eventually(lambda: answers(queues))

        dead = dev.children()["tailrace.cli"]
        os.kill(dead, signal.SIGKILL)
        dev.wait_for(r"The API was killed by SIGKILL; the end of .*api\.log")
        dev.wait_for(r"^Started the API again\.$")
        eventually(lambda: answers(f"{url}/readyz"))

        children = descendants(dev.process.pid)
        processes = {"mongod", "valkey-server", "tailrace_worker", "tailrace.cli", "rq_dashboard"}
        assert set(dev.children()) == processes
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(timeout=60) == 0
        assert not [pid for pid in children if alive(pid)]
        assert "Traceback" not in dev.shown
        assert dev.shown.endswith("Stopped.\n")


@linux
def test_killed_dev_leaves_nothing_and_its_data_and_secret_survive(tmp_path: Path) -> None:
    with running(tmp_path) as dev:
        url = dev.wait_for(r"^Tailrace is ready: (.*)/$")[1]
        token = httpx.get(f"{url}/dev/token", trust_env=False).json()["token"]
        secret = DevServer.of(tmp_path / "data").jwt_secret
        children = descendants(dev.process.pid)
        assert len(children) >= 4
        dev.process.kill()
        dev.process.wait()
        eventually(lambda: not [pid for pid in children if alive(pid)])
    with running(tmp_path) as dev:
        url = dev.wait_for(r"^Tailrace is ready: (.*)/$")[1]
        assert DevServer.of(tmp_path / "data").jwt_secret == secret
        answer = httpx.get(f"{url}/api/apps", headers={"Authorization": f"Bearer {token}"}, trust_env=False)
        assert answer.json()["apps"] == []


def test_second_dev_on_the_same_directory_says_so(tmp_path: Path) -> None:
    (tmp_path / "second").mkdir()
    with running(tmp_path) as first:
        first.wait_for(r"^Starting Valkey")
        with running(tmp_path / "second", "--data-dir", "../data") as second:
            assert second.process.wait(timeout=30) == 1
            assert f"Another `tailrace dev` (pid {first.process.pid}" in second.shown
            assert len(second.shown.splitlines()) == 1


@linux
def test_servers_that_the_environment_names_are_used(tmp_path: Path, settings: Settings) -> None:
    given = {"MONGODB_DB": settings.mongodb_db, "TAILRACE_QUEUE": settings.queue}
    urls = {"MONGODB_URL": settings.mongodb_url, "REDIS_URL": settings.redis_url}
    with running(tmp_path, **given, **urls) as dev:
        dev.wait_for(r"^Tailrace is ready")
        assert set(dev.children()) == {"tailrace_worker", "tailrace.cli"}


def test_taken_port_that_was_asked_for_is_named(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = str(other.getsockname()[1])
        with running(tmp_path, "--port", port) as dev:
            assert dev.process.wait(timeout=30) == 2
            assert dev.shown.startswith(f"tailrace: Port {port} is taken")


def test_ctrl_c_while_it_starts_ends_it_in_good_order(tmp_path: Path) -> None:
    with running(tmp_path) as dev:
        dev.wait_for(r"^Starting MongoDB")
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(timeout=30) == 0
        assert dev.shown.endswith("Stopped.\n")
        assert "ready" not in dev.shown


@linux
def test_second_ctrl_c_is_quicker_than_patience(tmp_path: Path) -> None:
    with running(tmp_path) as dev:
        dev.wait_for(r"^Tailrace is ready")
        frozen = dev.children()["tailrace.cli"]
        os.kill(frozen, signal.SIGSTOP)
        dev.process.send_signal(signal.SIGINT)
        dev.wait_for(r"^Stopping")
        dev.process.send_signal(signal.SIGINT)
        assert dev.process.wait(timeout=8) == 0
        assert not alive(frozen)


def answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).status_code == 200
    except httpx.TransportError:
        return False


def descendants(pid: int) -> Sequence[int]:
    """The ids of all processes below `pid`."""
    path = Path(f"/proc/{pid}/task/{pid}/children")
    children = [int(child) for child in path.read_text().split()] if path.exists() else []
    return [*children, *(below for child in children for below in descendants(child))]


def command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text().replace("\0", " ")
    except OSError:
        return ""


def alive(pid: int) -> bool:
    """Whether a process runs; one that ended and is not yet reaped does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False
