"""What happens on a stream's connection beside the stream."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import pytest
from litestar import Litestar
from tests.e2e.stack import until
from tests.integration.api.conftest import Bearer
from tests.integration.live.test_live import Session

from tailrace.api.services import Services
from tailrace.mongo import Database
from tailrace.sessions import Sessions

DEADLINE = 30  # seconds

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class Client:
    """A client that says what it likes on one connection to `served`."""

    def __init__(self, served: httpx.AsyncClient, headers: dict[str, str]) -> None:
        self._url = served.base_url
        self._headers = "".join(f"{name}: {value}\r\n" for name, value in headers.items())

    def request(self, path: str) -> bytes:
        return f"GET {path} HTTP/1.1\r\nHost: here\r\n{self._headers}\r\n".encode()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Streams]:
        reader, writer = await asyncio.open_connection(self._url.host, self._url.port)
        try:
            async with asyncio.timeout(DEADLINE):
                yield reader, writer
        finally:
            writer.close()


@pytest.fixture
async def session(app: Litestar, database: Database) -> Session:
    services: Services = app.state.services
    await Sessions(database).claim("s1", "alice", title="")
    session = Session(services.log, "s1")
    await session.write("a", "b")
    return session


@pytest.fixture
def client(served: httpx.AsyncClient, session: Session, bearer: Bearer) -> Client:
    return Client(served, bearer("alice"))


STREAM = "/api/apps/s1/agent/stream-continue"


def unchunked(body: bytes) -> bytes:
    """The content of a chunked body, which must be whole."""
    content = b""
    while size := int(body[: body.index(b"\r\n")], 16):
        start = body.index(b"\r\n") + 2
        content += body[start : start + size]
        assert body[start + size : start + size + 2] == b"\r\n"
        body = body[start + size + 2 :]
    assert body == b"0\r\n\r\n"
    return content


def seqs_of(content: bytes) -> list[int]:
    return [int(seq) for seq in re.findall(rb"^id: s1:([0-9]+)$", content, re.MULTILINE)]


async def test_a_stream_is_a_whole_chunked_body_and_the_connections_last(client: Client) -> None:
    async with client.connected() as (reader, writer):
        writer.write(client.request("/healthz"))
        assert b'"ok"' in await reader.readuntil(b'"}')
        writer.write(client.request(f"{STREAM}?follow=none"))
        head, _, body = (await reader.read(-1)).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 ")
    assert head.lower().count(b"\r\nconnection: close") == 1
    assert seqs_of(unchunked(body)) == [1, 2]


async def test_what_a_client_sends_behind_its_request_disturbs_nothing(
    client: Client, session: Session, app: Litestar
) -> None:
    services: Services = app.state.services
    async with client.connected() as (reader, writer):
        writer.write(client.request(f"{STREAM}?follow=session") + client.request("/healthz"))
        received = await reader.readuntil(b"id: s1:2\n")
        writer.write(b"\0not HTTP\r\n\r\n" + client.request("/healthz"))
        await session.write("c")
        received += await reader.readuntil(b"id: s1:3\n")
        services.live.drain()
        received += await reader.read(-1)
    assert received.count(b"HTTP/1.1") == 1
    content = unchunked(received.partition(b"\r\n\r\n")[2])
    assert seqs_of(content) == [1, 2, 3]
    assert content.endswith(b'event: stream.rotate\ndata: {"reason":"draining"}\n\n')


async def test_a_client_that_leaves_is_forgotten(client: Client, app: Litestar) -> None:
    services: Services = app.state.services
    async with client.connected() as (reader, writer):
        writer.write(client.request(f"{STREAM}?follow=session"))
        await reader.readuntil(b"id: s1:2\n")
        await until(lambda: services.live.figures().readers["live"] == 1)
    await until(lambda: not any(services.live.figures().readers.values()))
    assert not services.live.sessions()


async def test_a_client_that_has_left_before_its_stream_began_is_forgotten(
    client: Client, app: Litestar
) -> None:
    services: Services = app.state.services
    for _ in range(20):
        async with client.connected() as (_, writer):
            writer.write(client.request(f"{STREAM}?follow=session"))
            await writer.drain()
    async with client.connected() as (reader, writer):
        writer.write(client.request(f"{STREAM}?follow=none"))
        await reader.read(-1)
    await until(lambda: not any(services.live.figures().readers.values()))
    assert not services.live.sessions()


async def test_another_server_is_told_what_is_missing(
    api: httpx.AsyncClient, session: Session, bearer: Bearer, caplog: pytest.LogCaptureFixture
) -> None:
    answer = await api.get(f"{STREAM}?follow=none", headers=bearer("alice"))
    assert answer.status_code == 500
    assert "tailrace api" in caplog.text
