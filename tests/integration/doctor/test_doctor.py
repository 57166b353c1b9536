"""The doctor, before real servers, well and sick."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack
from tests.integration.doctor.buffering import buffering_proxy

from tailrace.child import free_port
from tailrace.dev import child_environ
from tailrace.embedded import Mongod
from tailrace.settings import Settings


@pytest.fixture
def settings(mongo_url: str, redis_url: str) -> Settings:
    """Of a database and a queue that nobody uses."""
    return shared_settings(mongo_url, redis_url)


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    """A deployment that is well."""
    with Stack(shared_settings(mongo_url, redis_url)) as stack:
        yield stack


def _examined(settings: Settings, *options: str) -> tuple[int, dict[str, dict[str, str]]]:
    """The exit code of `tailrace doctor`, and its findings by check."""
    done = subprocess.run(
        [sys.executable, "-m", "tailrace.cli", "doctor", "--json", *options],
        env=child_environ(settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.stdout, done.stderr
    return done.returncode, {finding["check"]: finding for finding in json.loads(done.stdout)}


def test_a_deployment_that_is_well_has_no_problem_and_keeps_nothing_of_the_visit(
    stack: Stack, mongo: MongoClient[dict[str, Any]]
) -> None:
    code, found = _examined(stack.settings, "--url", stack.url)
    assert code == 0, found
    assert {name for name, finding in found.items() if finding["level"] == "problem"} == set()
    assert {"majority writes", "change stream", "workers", "api", "stream"} <= found.keys()
    assert found["stream"]["level"] != "problem"
    # One member: it works, and would not outlive much.
    assert found["replica set"]["level"] == "warning"
    assert "three members" in found["replica set"]["advice"]
    database = mongo[stack.settings.mongodb_db]
    for name in ("sessions", "events", "doctor"):
        assert database[name].count_documents({}) == 0


def test_a_proxy_that_buffers_the_stream_is_found(stack: Stack) -> None:
    with buffering_proxy(stack.settings.port) as port:
        code, found = _examined(stack.settings, "--url", f"http://127.0.0.1:{port}")
    assert code == 1
    assert found["api"]["level"] == "ok"
    assert found["stream"]["level"] == "problem"
    assert "proxy_buffering off" in found["stream"]["advice"]


def test_missing_indexes_and_workers_are_problems_that_name_the_command(
    settings: Settings,
) -> None:
    code, found = _examined(settings)
    assert code == 1
    assert found["indexes"]["level"] == "problem"
    assert "tailrace init-db" in found["indexes"]["advice"]
    assert found["workers"]["level"] == "problem"
    assert "tailrace worker" in found["workers"]["advice"]


def test_servers_that_do_not_answer_are_named_with_their_settings(settings: Settings) -> None:
    gone = msgspec.structs.replace(
        settings,
        mongodb_url=f"mongodb://127.0.0.1:{free_port()}/?replicaSet=rs0&serverSelectionTimeoutMS=500",
        redis_url=f"redis://127.0.0.1:{free_port()}/0",
    )
    code, found = _examined(gone)
    assert code == 1
    assert "MONGODB_URL" in found["MongoDB"]["advice"]
    assert "REDIS_URL" in found["Redis"]["advice"]


def test_a_server_without_a_replica_set_is_named(settings: Settings, tmp_path: Path) -> None:
    single = Mongod(tmp_path / "data", log=tmp_path / "mongod.log")
    (tmp_path / "data").mkdir()
    single.child.argv = [each for each in single.argv() if not each.startswith("--replSet")]
    single.child.start()
    try:
        url = f"mongodb://127.0.0.1:{single.port}/?directConnection=true"
        code, found = _examined(msgspec.structs.replace(settings, mongodb_url=url))
    finally:
        single.child.kill()
    assert code == 1
    assert "rs.initiate()" in found["replica set"]["advice"]


def test_a_person_reads_a_line_a_check_and_the_advice_below_it(stack: Stack) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tailrace.cli", "doctor"],
        env=child_environ(stack.settings),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert any(line.startswith("ok       majority writes") for line in lines)
    assert any(line.startswith(" " * 28 + "Run three members") for line in lines)
