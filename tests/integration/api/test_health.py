"""Liveness and readiness."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
import msgspec

from tailrace.api.app import create_app
from tailrace.settings import Settings

Api = httpx.AsyncClient


@asynccontextmanager
async def started(settings: Settings) -> AsyncIterator[Api]:
    """A client of an API with these settings."""
    app = create_app(settings)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://test.local") as client:
        yield client


async def readiness(api: Api, *, wanted: int) -> httpx.Response:
    """The answer of /readyz once it has the wanted status; what is wrong with it otherwise."""
    async with asyncio.timeout(20):
        while (answer := await api.get("/readyz")).status_code != wanted:
            pass
    return answer


async def test_the_process_is_alive(api: Api) -> None:
    assert (await api.get("/healthz")).json() == {"status": "ok"}


async def test_ready_when_every_part_answers(api: Api) -> None:
    answer = await readiness(api, wanted=200)
    assert answer.json() == {
        "ready": True,
        "mongodb": "ok",
        "indexes": "ok",
        "change_stream": "ok",
        "redis": "ok",
    }


async def test_the_indexes_are_made_by_the_api_itself(settings: Settings) -> None:
    async with started(settings) as api:
        await readiness(api, wanted=200)


async def test_redis_away_is_said(settings: Settings) -> None:
    away = msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1/0")
    async with started(away) as api:
        said = (await readiness(api, wanted=503)).json()
        assert said["redis"] == "Redis does not answer"


async def test_the_api_starts_without_a_database_and_says_so_in_time(settings: Settings) -> None:
    away = msgspec.structs.replace(settings, mongodb_url="mongodb://127.0.0.1:1/?replicaSet=rs0")
    async with started(away) as api:
        assert (await api.get("/healthz")).status_code == 200
        began = time.monotonic()
        answer = await api.get("/readyz")
        assert time.monotonic() - began < 4
        assert answer.status_code == 503
        assert answer.json()["mongodb"].startswith("MongoDB has no primary that answers")
        assert "127.0.0.1" not in answer.text
