"""A body is read as a whole, in time, a user's few at a time, and not parsed when it has too many values."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from litestar import Litestar, Request, post
from litestar.middleware import DefineMiddleware

from tailrace.api import body
from tailrace.api.body import MAX_VALUES, BodyReader
from tailrace.api.problems import MEDIA_TYPE, respond

MAX_BYTES = 4 * 1024 * 1024


@post("/ask", status_code=200)
async def ask(request: Request[Any, Any, Any]) -> dict[str, int]:
    return {"bytes": len(await request.body())}


@pytest.fixture
async def api() -> AsyncIterator[httpx.AsyncClient]:
    app = Litestar(
        [ask],
        middleware=[DefineMiddleware(BodyReader, max_bytes=MAX_BYTES)],
        exception_handlers={Exception: respond},
        logging_config=None,
        openapi_config=None,
    )
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://test.local") as client:
        yield client


def many(item: str, count: int = MAX_VALUES + 1) -> bytes:
    return f"[{','.join([item] * count)}]".encode()


@pytest.mark.parametrize("item", ["0", "[]", "{}", '""', '{"a":0}', '"a,b"', '"\\""', '"\\\\"', "[[]]"])
async def test_a_body_of_too_many_values_is_refused_unparsed(api: httpx.AsyncClient, item: str) -> None:
    content = many(item)
    json.loads(content)
    answer = await api.post("/ask", content=content)
    assert (answer.status_code, answer.headers["content-type"]) == (413, MEDIA_TYPE)
    assert "10,000 values" in answer.json()["detail"]


@pytest.mark.parametrize(
    "text",
    ["a, b: [c], {d}" * 50_000, '"quoted", ' * 50_000, "\\, " * 50_000, '\\",' * 50_000],
    ids=["punctuation", "quotes", "backslashes", "both"],
)
async def test_text_may_hold_any_punctuation(api: httpx.AsyncClient, text: str) -> None:
    content = json.dumps({"prompt": text}).encode()
    answer = await api.post("/ask", content=content)
    assert answer.json() == {"bytes": len(content)}


@pytest.mark.parametrize("size", [1, 2, 3, 7])
async def test_values_are_counted_over_any_chunks(api: httpx.AsyncClient, size: int) -> None:
    just = json.dumps({"a": ['"\\\\,[{:', "\\", "\\\\", '\\"'] * ((MAX_VALUES - 4) // 4)}).encode()
    for content, status in ((just, 200), (just[:-2] + b",0,0,0]}", 413)):

        async def chunks(content: bytes = content) -> AsyncIterator[bytes]:
            for start in range(0, len(content), size):
                yield content[start : start + size]

        assert (await api.post("/ask", content=chunks())).status_code == status


async def test_a_body_without_a_length_is_bounded_too(api: httpx.AsyncClient) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        for _ in range(MAX_BYTES // 65_536 + 1):
            yield b" " * 65_536

    answer = await api.post("/ask", content=chunks())
    assert (answer.status_code, answer.headers["content-type"]) == (413, MEDIA_TYPE)


async def test_a_body_that_does_not_come_is_not_waited_for(
    api: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(body, "BODY_SECONDS", 0.2)
    never = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        yield b"{"
        await never.wait()

    answer = await api.post("/ask", content=chunks())
    assert (answer.status_code, answer.headers["content-type"]) == (408, MEDIA_TYPE)
    assert answer.headers["connection"] == "close"


async def test_a_users_bodies_are_read_a_few_at_a_time(api: httpx.AsyncClient) -> None:
    begun = 0
    go = asyncio.Event()

    async def chunks() -> AsyncIterator[bytes]:
        nonlocal begun
        begun += 1
        yield b"{"
        await go.wait()
        yield b"}"

    asked = [asyncio.create_task(api.post("/ask", content=chunks())) for _ in range(20)]
    async with asyncio.timeout(20):
        while begun < body.BODIES_OF_A_USER:  # noqa: ASYNC110 - the generators say so
            await asyncio.sleep(0)
    for _ in range(100):
        await asyncio.sleep(0)
    assert begun == body.BODIES_OF_A_USER
    go.set()
    assert [answer.json() for answer in await asyncio.gather(*asked)] == [{"bytes": 2}] * 20
