"""`tailrace verify` on a real stack: what is whole is verified, what was changed behind its back is named."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from pymongo import MongoClient
from pymongo.collection import Collection
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack

from tailrace.client import Client, DigestMismatch, terminal

Events = Collection[dict[str, Any]]


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = shared_settings(mongo_url, redis_url)
    with Stack(msgspec.structs.replace(settings, offline_tokens_per_second=1000.0)) as stack:
        yield stack


@pytest.fixture
def events(stack: Stack, mongo: MongoClient[dict[str, Any]]) -> Events:
    return mongo[stack.settings.mongodb_db]["events"]


@pytest.fixture
async def session(stack: Stack) -> str:
    """A session with three finished runs."""
    name = uuid4().hex
    async with Client(stack.url, stack.token()) as client:
        for prompt in ("What is 17 * 23?", "please fail", "What time is it in Tokyo?"):
            frames = [frame async for frame in client.generate(name, prompt)]
            assert len(frames[-1].data["digest"]) == 64
    return name


def verify(stack: Stack, session: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tailrace.cli", "verify", session, *options]
    command += ["--url", stack.url, "--token", stack.token()]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def reported(stack: Stack, session: str) -> tuple[int, dict[str, Any]]:
    done = verify(stack, session, "--json")
    assert done.stdout, done.stderr
    return done.returncode, json.loads(done.stdout)


async def test_a_session_as_it_was_written_is_verified(stack: Stack, session: str, events: Events) -> None:
    done = verify(stack, session)
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert [line.split()[2:] for line in lines[1:4]] == [
        ["success", "ok"],
        ["error", "ok"],
        ["success", "ok"],
    ]
    count = events.count_documents({"session_id": session})
    assert lines[4] == f"Session {session}, events 1 to {count}: verified."


async def test_a_changed_event_is_laid_to_its_run(stack: Stack, session: str, events: Events) -> None:
    delta = events.find_one({"session_id": session, "event_type": "message_delta"})
    assert delta is not None
    events.update_one({"_id": delta["_id"]}, {"$set": {"data.delta": "something else"}})
    code, report = reported(stack, session)
    assert (code, report["verified"], report["faults"]) == (1, False, [])
    assert [run["digest"] for run in report["runs"]] == ["mismatch", "ok", "ok"]
    assert report["runs"][0]["run_id"] == delta["run_id"]
    shown = verify(stack, session).stdout
    assert "mismatch" in shown
    assert "NOT verified" in shown
    async with Client(stack.url, stack.token()) as client:
        with pytest.raises(DigestMismatch, match=delta["run_id"]):
            async for _ in client.follow(session, follow="none"):
                pass


async def test_a_deleted_event_is_named(stack: Stack, session: str, events: Events) -> None:
    events.delete_one({"session_id": session, "seq": 4})
    code, report = reported(stack, session)
    assert code == 1
    assert report["faults"] == ["event 4 is missing"]
    assert [run["digest"] for run in report["runs"]] == ["mismatch", "ok", "ok"]


async def test_an_expired_beginning_cannot_be_checked_and_is_no_fault(
    stack: Stack, session: str, events: Events
) -> None:
    events.delete_many({"session_id": session, "seq": {"$lt": 4}})
    code, report = reported(stack, session)
    assert (code, report["first_seq"]) == (0, 4)
    assert [run["digest"] for run in report["runs"]] == ["partial", "ok", "ok"]


def test_a_server_that_says_nothing_verifies_nothing(
    stack: Stack, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(terminal, "STALL_SECONDS", 0.5)
    assert stack.api.pid
    os.kill(stack.api.pid, signal.SIGSTOP)
    try:
        status = terminal.verify(url=stack.url, token=stack.token(), session="nobody")
    finally:
        os.kill(stack.api.pid, signal.SIGCONT)
    said = capsys.readouterr()
    assert (status, said.out) == (1, "")
    assert "nothing was verified" in said.err


def test_an_unknown_session_fails_with_a_sentence(stack: Stack) -> None:
    done = verify(stack, "nobody")
    assert (done.returncode, done.stdout) == (1, "")
    assert "Traceback" not in done.stderr
    assert done.stderr.strip()
