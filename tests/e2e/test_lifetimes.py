"""How open streams end: expired tokens, sessions that change hands, readers that read nothing, shutdown."""

from __future__ import annotations

import asyncio
import os
import select
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import msgspec
import pytest
from pymongo import MongoClient
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack, until

from tailrace.client import Client, Frame, NotFound, Unauthorized
from tailrace.embedded import mongod
from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.mongo import connect
from tailrace.sessions import Sessions
from tailrace.tokens import LEEWAY_SECONDS, mint
from tailrace.writer import Writer

STALL_SECONDS = 2
DRAIN_SECONDS = 4
MOST_MIB = 100  # for 200 readers that take nothing; half of it was measured


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    """An API for the module, without a worker: the tests write the events. It cuts and drains soon."""
    settings = msgspec.structs.replace(
        shared_settings(mongo_url, redis_url),
        offline_tokens_per_second=300.0,
        send_stall_seconds=STALL_SECONDS,
        drain_seconds=DRAIN_SECONDS,
    )
    stack = Stack(settings)
    try:
        stack.start_api()
        yield stack
    finally:
        stack.__exit__(None, None, None)


@pytest.fixture
def sid() -> str:
    """A session that no other test has seen."""
    return f"s{uuid4().hex[:8]}"


def short_lived(stack: Stack, *, seconds: float) -> str:
    """A token that is accepted for up to `seconds` more: its `exp` is past, within the leeway."""
    return mint(stack.settings, user="alice", seconds=seconds - LEEWAY_SECONDS)


async def write(stack: Stack, session_id: str, *texts: str) -> int:
    """Append a delta for each text to alice's session; returns the last one's `seq`."""

    async def mine() -> bool:
        return True

    async with connect(stack.settings) as database:
        await Sessions(database).claim(session_id, "alice", title="")
        log = EventLog(database, retention_seconds=3600)
        writer = Writer(log, session_id, run_id="written", attempt=1, owns=mine)
        for text in texts:
            await writer.append([Draft(event_type="message_delta", data={"delta": text})])
        return writer.last_seq


async def test_a_token_that_expires_ends_the_stream_and_a_new_one_goes_on(stack: Stack, sid: str) -> None:
    await write(stack, sid, "Hello")
    asked: list[float] = []

    async def token() -> str:
        asked.append(time.time())
        return short_lived(stack, seconds=3) if len(asked) == 1 else stack.token()

    frames: list[tuple[float, Frame]] = []
    async with Client(stack.url, token) as client:

        async def read() -> None:
            async for frame in client.follow(sid, follow="session"):
                frames.append((time.time(), frame))

        reading = asyncio.create_task(read())
        await until(lambda: len(asked) == 2)
        await write(stack, sid, "Again")
        await until(lambda: [frame.seq for _, frame in frames if frame.seq] == [1, 2])
        reading.cancel()
    expired = [(at, frame) for at, frame in frames if frame.event == "stream.expired"]
    assert [frame.data for _, frame in expired] == [{"reason": "token_expired"}]
    assert expired[0][0] < int(asked[0]) + 3 + 1.5


async def test_without_a_new_token_an_expired_one_is_an_error(stack: Stack, sid: str) -> None:
    await write(stack, sid, "Hello")
    async with Client(stack.url, short_lived(stack, seconds=3)) as client:
        with pytest.raises(Unauthorized, match="expired"):
            async for _ in client.follow(sid, follow="session"):
                pass


@pytest.mark.parametrize("how", ["deleted", "given away"])
async def test_who_loses_a_session_loses_its_open_streams(
    stack: Stack, sid: str, mongo: MongoClient[dict[str, Any]], how: str
) -> None:
    await write(stack, sid, "Hello")
    other = f"{sid}-other"
    await write(stack, other, "Hello")
    readers = [stack.reader(sid, follow="session") for _ in range(20)]
    bystander = stack.reader(other, follow="session")
    reading = [asyncio.create_task(reader.read()) for reader in readers]
    standing = asyncio.create_task(bystander.read())
    await until(lambda: all(reader.events for reader in [*readers, bystander]))

    sessions = mongo[stack.settings.mongodb_db]["sessions"]
    if how == "deleted":
        sessions.delete_one({"_id": sid})
    else:
        sessions.update_one({"_id": sid}, {"$set": {"owner": "bob"}})
    lost_at = time.monotonic()
    await asyncio.gather(*reading)
    assert time.monotonic() - lost_at < 5
    assert all(reader.frames[-1].event == "stream.expired" for reader in readers)
    assert all(reader.frames[-1].json == {"reason": "revoked"} for reader in readers)
    assert not standing.done()
    standing.cancel()
    async with Client(stack.url, stack.token()) as client:
        with pytest.raises(NotFound):
            async for _ in client.follow(sid, last_event_id=readers[0].last_event_id):
                pass


def silent(stack: Stack, session_id: str, *, buffer: int = 4096) -> socket.socket:
    """A client that asks for the session's stream and never reads."""
    asking = socket.socket()
    asking.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
    asking.connect(("127.0.0.1", stack.settings.port))
    asking.sendall(
        f"GET /api/apps/{session_id}/agent/stream-continue?follow=session HTTP/1.1\r\n"
        f"Host: 127.0.0.1\r\nAuthorization: Bearer {stack.token()}\r\n\r\n".encode()
    )
    return asking


def is_cut(asked: socket.socket) -> bool:
    """Whether the connection was reset."""
    poll = select.poll()
    poll.register(asked, 0)
    return bool(poll.poll(0))


def resident_mib(pid: int) -> float:
    """The memory of a process that is in RAM."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096 / 2**20


async def test_readers_that_read_nothing_are_cut_and_cost_the_others_nothing(stack: Stack, sid: str) -> None:
    await write(stack, sid, *["x" * 20_000] * 100)
    pid = stack.api.pid or 0
    before, peak = resident_mib(pid), 0.0
    deaf = [silent(stack, sid) for _ in range(200)]
    try:
        reader = stack.reader(sid, follow="session")
        reading = asyncio.create_task(reader.read())
        last = await write(stack, sid, *"y" * 50)
        await until(lambda: reader.seqs[-1:] == [last], within=10)
        assert reader.seqs == list(range(1, last + 1))

        def all_cut() -> bool:
            nonlocal peak
            peak = max(peak, resident_mib(pid))
            return all(is_cut(asked) for asked in deaf)

        await until(all_cut, within=30)
        assert not reading.done()
        assert peak - before < MOST_MIB
        reading.cancel()
    finally:
        for asked in deaf:
            asked.close()


async def test_a_reader_that_is_slow_but_reads_is_not_cut(stack: Stack, sid: str) -> None:
    last = await write(stack, sid, *["x" * 20_000] * 100)
    slow = silent(stack, sid, buffer=128 * 1024)  # a smaller window than a loopback segment stalls by itself
    opened_at = time.monotonic()
    received = bytearray()
    with slow:
        slow.settimeout(10)
        while f"id: {sid}:{last}\n".encode() not in received[-40_000:]:
            received += await asyncio.to_thread(slow.recv, 65_536)
            await asyncio.sleep(0.2)  # it is this slow; nothing is waited for
    assert time.monotonic() - opened_at > 2 * STALL_SECONDS


async def test_shutdown_ends_in_time_although_some_read_nothing(stack: Stack, sid: str) -> None:
    await write(stack, sid, *["x" * 20_000] * 100)
    other = f"{sid}-other"
    await write(stack, other, "Hello")
    readers = [stack.reader(other, follow="session") for _ in range(100)]
    reading = [asyncio.create_task(reader.read()) for reader in readers]
    await until(lambda: all(reader.events for reader in readers))
    deaf = [silent(stack, sid) for _ in range(50)]
    await until(lambda: all(select.select([asked], [], [], 0)[0] for asked in deaf))
    try:
        stopped_at = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(stack.api.stop, patience=60))
        await asyncio.gather(*reading)
        told = time.monotonic() - stopped_at
        await stopping
        took = time.monotonic() - stopped_at
    finally:
        for asked in deaf:
            asked.close()
    assert told < 2
    assert took < DRAIN_SECONDS + 2
    assert all(reader.frames[-1].event == "stream.rotate" for reader in readers)
    log = "\n".join(stack.api.tail(200))
    stack.start_api()
    assert "Traceback" not in log


async def test_shutdown_ends_in_time_while_mongodb_hangs(stack: Stack, sid: str, tmp_path: Path) -> None:
    with mongod(tmp_path / "data") as url:
        own = Stack(msgspec.structs.replace(stack.settings, mongodb_url=url, mongodb_db=sid))
        with MongoClient[dict[str, Any]](url) as mongo:
            pid = int(mongo.admin.command("serverStatus")["pid"])
        try:
            own.start_api()
            await write(own, sid, "Hello")
            reader = own.reader(sid, follow="session")
            reading = asyncio.create_task(reader.read())
            await until(lambda: reader.seqs == [1])
            os.kill(pid, signal.SIGSTOP)
            asked_in_vain = silent(own, sid)
            stopped_at = time.monotonic()
            stopping = asyncio.create_task(asyncio.to_thread(own.api.stop, patience=60))
            await reading
            await stopping
            took = time.monotonic() - stopped_at
            asked_in_vain.close()
        finally:
            os.kill(pid, signal.SIGCONT)
            own.__exit__(None, None, None)
    assert took < DRAIN_SECONDS + 4
    assert reader.frames[-1].event == "stream.rotate"
