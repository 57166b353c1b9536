"""The Python client and the terminal, against real processes."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from uuid import uuid4

import msgspec
import pytest
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack

from tailrace.client import BadRequest, Client, Conflict, Frame, NotFound, Unauthorized, Unreachable

LONG = "Please write 300 words."


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    settings = shared_settings(mongo_url, redis_url)
    with Stack(msgspec.structs.replace(settings, offline_tokens_per_second=300.0)) as stack:
        yield stack


def session_id() -> str:
    return uuid4().hex


def text_of(frames: list[Frame]) -> str:
    return "".join(frame.data["delta"] for frame in frames if frame.type == "message_delta")


def seqs_of(frames: list[Frame]) -> list[int]:
    return [frame.seq for frame in frames if frame.seq is not None]


async def test_a_run_is_read_whole_and_can_be_read_again(stack: Stack) -> None:
    session = session_id()
    async with Client(stack.url, stack.token()) as client:
        seen = [frame async for frame in client.generate(session, "What is 17 * 23?")]
        again = [frame async for frame in client.follow(session)]
        rest = [frame async for frame in client.follow(session, last_event_id=seen[-1].id)]
    assert "391" in text_of(seen)
    assert seen[-1].type == "finish"
    assert seen[-1].data["status"] == "success"
    assert seqs_of(seen) == list(range(1, len(seqs_of(seen)) + 1)) == seqs_of(again)
    assert rest == []


async def test_readers_outlive_the_server(stack: Stack) -> None:
    session = session_id()
    frames: list[list[Frame]] = [[], []]
    begun = asyncio.Event()

    async def write(client: Client) -> None:
        async for frame in client.generate(session, LONG):
            frames[0].append(frame)
            if len(seqs_of(frames[0])) > 20:
                begun.set()

    async def watch(client: Client) -> None:
        await begun.wait()
        async for frame in client.follow(session, since_timestamp=0.0):
            frames[1].append(frame)

    async def strike() -> None:
        await begun.wait()
        stack.kill_api()
        stack.start_api()  # not in a thread: the process would die with it

    async with Client(stack.url, stack.token()) as client, asyncio.timeout(60), asyncio.TaskGroup() as group:
        group.create_task(write(client))
        group.create_task(watch(client))
        group.create_task(strike())
    for seen in frames:
        assert seqs_of(seen) == list(range(1, seqs_of(seen)[-1] + 1))
        assert seen[-1].type == "finish"
        assert len(text_of(seen).split()) == 300


async def test_a_refusal_has_its_own_type_and_says_why(stack: Stack) -> None:
    session = session_id()
    async with Client(stack.url, stack.token()) as client:
        with pytest.raises(NotFound):
            await anext(client.follow(session))
        with pytest.raises(BadRequest) as refusal:
            await anext(client.generate(session, " "))
        assert refusal.value.detail
        run = client.generate(session, "Please write 2000 words.")
        await anext(run)
        with pytest.raises(Conflict) as conflict:
            await anext(client.generate(session, "And now?"))
        assert conflict.value.detail
        await run.aclose()
    async with Client(stack.url, "no-token") as client:
        with pytest.raises(Unauthorized):
            await anext(client.follow(session))


async def test_where_no_server_is_patience_ends(unused_url: str) -> None:
    async with Client(unused_url, "token", patience=0.2) as client:
        with pytest.raises(Unreachable, match=unused_url):
            await anext(client.follow("s"))


@pytest.fixture
def unused_url() -> str:
    from tailrace.child import free_port

    return f"http://127.0.0.1:{free_port()}"


def command(stack: Stack, *arguments: str) -> list[str]:
    return [sys.executable, "-m", "tailrace.cli", *arguments, "--url", stack.url, "--token", stack.token()]


def run(stack: Stack, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(stack, *arguments), capture_output=True, text=True, timeout=60, check=False)


@contextmanager
def chatting(stack: Stack, session: str) -> Iterator[subprocess.Popen[str]]:
    """A `tailrace chat` in the midst of a long answer."""
    argv = command(stack, "chat", "Please write 20000 words.", "--session", session)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as chat:
        try:
            assert chat.stdout
            assert chat.stdout.read(30)
            yield chat
        finally:
            chat.kill()


def test_chat_prints_the_answer_alone_on_standard_output(stack: Stack) -> None:
    session = session_id()
    done = run(stack, "chat", "What is 17 * 23?", "--session", session)
    assert done.returncode == 0, done.stderr
    assert "391" in done.stdout
    assert "calculator" not in done.stdout.replace("calculator tool", "")
    assert "→ calculator" in done.stderr
    assert f"--session {session}" in done.stderr


def test_chat_says_why_a_run_failed(stack: Stack) -> None:
    done = run(stack, "chat", "please fail")
    assert done.returncode == 1
    assert "fail" in done.stderr


def test_tail_prints_a_line_an_event_and_json_prints_the_frames(stack: Stack) -> None:
    session = session_id()
    chat = run(stack, "chat", "What is 17 * 23?", "--session", session, "--json")
    frames = [json.loads(line) for line in chat.stdout.splitlines()]
    events = [frame for frame in frames if "seq" in frame]
    lines = run(stack, "tail", session, "--follow", "none", "--since", "10m").stdout.splitlines()
    assert [line.split()[1:3] for line in lines] == [[str(e["seq"]), e["event_type"]] for e in events]
    assert events[-1]["event_type"] == "finish"


def test_tail_of_an_unknown_session_or_moment_fails_with_a_sentence(stack: Stack) -> None:
    for status, arguments in (
        (1, ["tail", "nobody"]),
        (1, ["tail", "no\x01body"]),
        (2, ["tail", "nobody", "--since", "soon"]),
    ):
        done = run(stack, *arguments)
        assert (done.returncode, len(done.stderr.splitlines())) == (status, 1)
        assert done.stderr.startswith("tailrace: ")


def test_a_reader_that_leaves_is_no_error(stack: Stack) -> None:
    # The pipe's reading end is closed before the command writes its first word.
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run(
        command(stack, "chat", LONG),
        stdout=writing,
        stderr=subprocess.PIPE,
        text=True,
        timeout=60,
        check=False,
    )
    os.close(writing)
    assert done.returncode == 0
    assert "Error" not in done.stderr
    assert "Exception" not in done.stderr


def test_ctrl_c_cancels_the_run_and_shows_its_end(stack: Stack) -> None:
    session = session_id()
    with chatting(stack, session) as chat:
        chat.send_signal(signal.SIGINT)
        rest, errors = chat.communicate(timeout=60)
    assert chat.returncode == 1
    assert rest.endswith("\n")
    assert "cancelled" in errors
    assert "Traceback" not in errors
    shown = run(stack, "tail", session, "--follow", "none").stdout.splitlines()
    assert shown[-1].split()[2:] == ["finish", "cancelled"]


def test_a_second_ctrl_c_leaves_at_once(stack: Stack) -> None:
    session = session_id()
    with chatting(stack, session) as chat:
        assert stack.api.pid
        os.kill(stack.api.pid, signal.SIGSTOP)  # so that the run does not end meanwhile
        try:
            chat.send_signal(signal.SIGINT)
            assert chat.stderr
            while "Cancelling" not in chat.stderr.readline():
                assert chat.poll() is None
            chat.send_signal(signal.SIGINT)
            _, errors = chat.communicate(timeout=60)
        finally:
            os.kill(stack.api.pid, signal.SIGCONT)
    assert chat.returncode == 130
    assert "Traceback" not in errors
    assert run(stack, "cancel", session).returncode == 0


def test_cancel_names_the_run_that_ends_and_is_harmless_after(stack: Stack) -> None:
    session = session_id()
    with chatting(stack, session) as chat:
        cancel = run(stack, "cancel", session, "--json")
        _, errors = chat.communicate(timeout=60)
    told = json.loads(cancel.stdout)
    assert (cancel.returncode, told["session_id"], len(told["run_id"])) == (0, session, 32)
    assert (chat.returncode, "cancelled" in errors) == (1, True)
    again = run(stack, "cancel", session)
    assert (again.returncode, again.stdout) == (0, "Nothing runs in this session.\n")
    unknown = run(stack, "cancel", session_id())
    assert (unknown.returncode, len(unknown.stderr.splitlines())) == (1, 1)
