"""What a connection refuses by itself, before there is a request that the app could see."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import uvicorn
from tests.fuzz.wire import exchange, opened, request
from uvicorn.server import ServerState

from tailrace.api.connection import MAX_HEAD_BYTES, connection_with
from tailrace.api.problems import MEDIA_TYPE

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
LARGE = b"A" * MAX_HEAD_BYTES + b": b\r\n"  # a header


@pytest.fixture
def patience() -> float:
    """Seconds for a head to come."""
    return 20.0


@pytest.fixture
async def port(patience: float) -> AsyncIterator[int]:
    """Where an app listens that begins an answer, and ends it when the client has sent all; at `/wait`, when
    he has left. At `/slow` it does not begin before the test is over.
    """
    over = asyncio.Event()

    async def app(scope: Any, receive: Callable[[], Any], send: Callable[[Any], Any]) -> None:
        if scope["path"] != "/wait":
            while (await receive()).get("more_body"):
                pass
        if scope["path"] == "/slow":
            await over.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"begun ", "more_body": True})
        if scope["path"] == "/wait":
            while (await receive())["type"] != "http.disconnect":
                pass
        await send({"type": "http.response.body", "body": b"ended"})

    config = uvicorn.Config(app, lifespan="off", log_config=None, access_log=False)
    config.load()
    state = ServerState()
    kind = connection_with(patience)
    make = lambda: kind(config=config, server_state=state, app_state={})  # noqa: E731
    server = await asyncio.get_running_loop().create_server(make, "127.0.0.1")
    yield server.sockets[0].getsockname()[1]
    over.set()
    server.close()
    for connection in tuple(state.connections):
        connection.cut()  # type: ignore[union-attr]
    await asyncio.gather(*state.tasks, return_exceptions=True)


async def test_what_is_no_http_is_a_problem(port: int) -> None:
    answer = await exchange(port, [b"\x16\x03\x01 nonsense\r\n\r\n"], half_close=False, within=20)
    assert (answer.status, answer.headers["content-type"], answer.ended) == (400, MEDIA_TYPE, True)
    assert answer.json["status"] == 400


@pytest.mark.parametrize("head", [GET + b"A: ", GET + b"A: b\r\n" * 100], ids=["a header", "many headers"])
async def test_a_head_without_end_is_refused(port: int, head: bytes) -> None:
    async def endless() -> int:
        reader, writer = await opened(port)
        sent = 0
        try:
            while not reader.at_eof() and sent < 100 * MAX_HEAD_BYTES:
                writer.write(head)
                sent += len(head)
                await writer.drain()
                await asyncio.sleep(0)
        except ConnectionError:
            pass
        finally:
            writer.close()
        return sent

    async with asyncio.timeout(60):
        assert await endless() < 100 * MAX_HEAD_BYTES


async def test_a_large_head_is_told_how_large_it_may_be(port: int) -> None:
    reader, writer = await opened(port)
    writer.write(GET)
    for _ in range(MAX_HEAD_BYTES // 1024 + 1):
        writer.write(b"A: " + b"b" * 1019 + b"\r\n")
        await writer.drain()
        await asyncio.sleep(0.001)  # or it would come in one piece, and be read before it is counted
    async with asyncio.timeout(20):
        said = await reader.read()
    writer.close()
    assert said.startswith(b"HTTP/1.1 431 ")
    assert "64 KiB" in json.loads(said.partition(b"\r\n\r\n")[2])["detail"]


async def test_a_large_body_is_none_of_the_heads_business(port: int) -> None:
    whole = request("POST", "/", [], b"a" * (4 * MAX_HEAD_BYTES))
    answer = await exchange(port, [whole[:70_000], whole[70_000:]], half_close=False, within=20)
    assert (answer.status, answer.body) == (200, b"begun ended")


@pytest.mark.parametrize("patience", [0.2])
@pytest.mark.parametrize(("begun", "status"), [(GET, 408), (b"", 0)], ids=["half a head", "nothing"])
async def test_a_head_that_does_not_come_is_not_waited_for(port: int, begun: bytes, status: int) -> None:
    answer = await exchange(port, [begun], half_close=False, within=20)
    assert (answer.status, answer.ended) == (status, True)


@pytest.mark.parametrize("patience", [0.2])
async def test_an_answer_may_take_longer_than_a_head(port: int) -> None:
    reader, writer = await opened(port)
    writer.write(request("GET", "/wait"))
    await reader.readuntil(b"begun \r\n")
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(1.0):
            await reader.read(1)
    writer.close()


async def test_nonsense_behind_a_request_adds_nothing_to_its_answer(port: int) -> None:
    reader, writer = await opened(port)
    writer.write(GET.replace(b"/ ", b"/wait ") + b"\r\n")
    await reader.readuntil(b"begun ")
    writer.write(b"\0nonsense\r\n\r\n")
    async with asyncio.timeout(20):
        rest = await reader.read()
    writer.close()
    assert b"HTTP/1.1" not in rest


@pytest.mark.parametrize(
    "behind", [b"nonsense\r\n\r\n", GET + b"\r\n\0nonsense\r\n\r\n", GET + LARGE + b"\r\n"]
)
async def test_what_is_wrong_behind_a_request_in_flight_is_not_its_answer(port: int, behind: bytes) -> None:
    answer = await exchange(
        port, [GET.replace(b"/ ", b"/slow ") + b"\r\n" + behind], half_close=False, within=20
    )
    assert (answer.status, answer.ended) == (0, True)


async def test_what_is_wrong_behind_an_answer_is_answered(port: int) -> None:
    reader, writer = await opened(port)
    writer.write(GET + b"\r\n")
    async with asyncio.timeout(20):
        await reader.readuntil(b"ended\r\n0\r\n\r\n")
        writer.write(b"nonsense\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 400 ")
    writer.close()


async def test_a_body_that_is_no_http_is_a_problem_of_its_request(port: int) -> None:
    head = b"POST /slow HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = await exchange(port, [head + b"nonsense\r\n"], half_close=False, within=20)
    assert (answer.status, answer.headers["content-type"]) == (400, MEDIA_TYPE)


@pytest.mark.parametrize(
    "head",
    [
        GET + LARGE,
        GET + b"A: b\r\n" * (MAX_HEAD_BYTES // 6),
        b"GET /" + b"a" * MAX_HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n",
    ],
    ids=["a header", "many headers", "a path"],
)
async def test_a_large_head_that_comes_in_one_piece_is_told_so_too(port: int, head: bytes) -> None:
    answer = await exchange(port, [head + b"\r\n"], half_close=False, within=20)
    assert (answer.status, answer.headers["content-type"]) == (431, MEDIA_TYPE)


async def test_a_head_may_be_nearly_as_large(port: int) -> None:
    answer = await exchange(port, [GET + LARGE[1_000:] + b"\r\n"], half_close=False, within=20)
    assert answer.status == 200
