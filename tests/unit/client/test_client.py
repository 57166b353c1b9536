"""The client against a real HTTP server that sends what a script says."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec
import pytest
from tests.unit.client.frames import run_of, sse

from tailrace.client import Client, ClientError, DigestMismatch, Frame, ServerError, TooManyRequests

LIMITED = (
    b"HTTP/1.1 429 Too Many Requests\r\nContent-Type: application/problem+json\r\nRetry-After: 1\r\n"
    b"Connection: close\r\n\r\n"
    b'{"title":"A limit of the user is reached","status":429,"detail":"At most 20 runs."}'
)
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n\r\nretry: 20\n\n"


PROXYS = (
    b"HTTP/1.1 502 Bad Gateway\r\nContent-Type: text/html; charset=iso-8859-1\r\nConnection: close\r\n\r\n"
    b'{"title":"D\xe9sol\xe9"}'
)


@asynccontextmanager
async def served(*answers: bytes) -> AsyncIterator[str]:
    """The address of a server whose nth answer is the nth of `answers`: a whole one, or a stream's body."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        told = left.pop(0)
        writer.write(told if told.startswith(b"HTTP/") else HEAD + told)
        await writer.drain()
        writer.close()
        await writer.wait_closed()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        host, port = server.sockets[0].getsockname()
        yield f"http://{host}:{port}"


async def followed(url: str, **options: bool) -> tuple[list[int | None], ClientError | None]:
    """The places of what was yielded, and what was raised at last."""
    seqs: list[int | None] = []
    async with Client(url, "token", patience=5.0, **options) as client, asyncio.timeout(30):
        try:
            async for frame in client.follow("s"):
                seqs.append(frame.seq)
        except ClientError as error:
            return seqs, error
    return seqs, None


def tampered(frames: list[Frame], nth: int) -> list[Frame]:
    changed = msgspec.structs.replace(frames[nth], raw=frames[nth].raw.replace("«", "<"))
    return [*frames[:nth], changed, *frames[nth + 1 :]]


async def test_a_run_that_is_read_over_a_cut_is_proven_whole() -> None:
    frames = run_of("r", range(1, 9))
    async with served(sse(frames[:4]), sse(frames[2:])) as url:
        assert await followed(url) == (list(range(1, 9)), None)


async def test_a_tampered_event_raises_in_place_of_the_finish() -> None:
    async with served(sse(tampered(run_of("r", range(1, 9)), 4))) as url:
        seqs, error = await followed(url)
    assert isinstance(error, DigestMismatch)
    assert error.run_id == "r"
    assert seqs == list(range(1, 8))


async def test_a_run_joined_in_its_middle_is_not_checked() -> None:
    frames = tampered(run_of("r", range(1, 9)), 4)
    async with served(sse(frames[3:])) as url:
        assert await followed(url) == (list(range(4, 9)), None)


async def test_the_check_can_be_left_to_the_caller() -> None:
    async with served(sse(tampered(run_of("r", range(1, 9)), 4))) as url:
        assert await followed(url, check_digests=False) == (list(range(1, 9)), None)


async def test_a_stream_too_many_is_asked_for_again_when_the_server_says() -> None:
    began = time.monotonic()
    async with served(LIMITED, LIMITED, sse(run_of("r", range(1, 4)))) as url:
        assert await followed(url) == ([1, 2, 3], None)
    assert time.monotonic() - began >= 2


async def test_a_run_too_many_is_left_to_the_caller_with_the_time_to_wait() -> None:
    async with served(LIMITED) as url, Client(url, "token") as client:
        with pytest.raises(TooManyRequests, match="At most 20 runs") as caught:
            await anext(client.generate("s", "Hello"))
    assert caught.value.retry_after == 1


async def test_an_error_in_another_encoding_is_a_problem_all_the_same() -> None:
    async with served(PROXYS) as url, Client(url, "token") as client:
        with pytest.raises(ServerError, match="Bad Gateway"):
            await client.cancel("s")
