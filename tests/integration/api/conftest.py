"""The API in this process, over a real MongoDB and a real Valkey, and users to ask it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import httpx
import pytest
import uvicorn
from litestar import Litestar

from tailrace.api.app import create_app
from tailrace.api.connection import connection_with
from tailrace.api.services import Services
from tailrace.mongo import Database
from tailrace.settings import Settings
from tailrace.tokens import mint

Bearer = Callable[[str], dict[str, str]]


@asynccontextmanager
async def started(app: Litestar) -> AsyncIterator[Litestar]:
    """Its lifespan in a task of its own: pytest ends a fixture in another one, which anyio refuses."""
    up, down = asyncio.Event(), asyncio.Event()

    async def live() -> None:
        async with app.lifespan():
            up.set()
            await down.wait()

    async with asyncio.TaskGroup() as group:
        group.create_task(live())
        await up.wait()
        yield app
        down.set()


async def ready(app: Litestar) -> None:
    """Wait for what starts in the background: the driver leaks a socket whose connecting is cancelled."""
    services: Services = app.state.services
    async with asyncio.timeout(20):
        while services.indexes.status() or services.live.status():  # noqa: ASYNC110 - neither has an event
            await asyncio.sleep(0)


@pytest.fixture
async def app(settings: Settings, database: Database) -> AsyncIterator[Litestar]:
    """The API, started."""
    async with started(create_app(settings)) as app:
        await ready(app)
        yield app


@pytest.fixture
async def api(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it, in the same event loop."""
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://testserver.local") as client:
        yield client


@pytest.fixture
async def served(app: Litestar) -> AsyncIterator[httpx.AsyncClient]:
    """A client of it over a socket, as streams need one: they write to their connections themselves."""
    config = uvicorn.Config(app, http=connection_with(stall_seconds=30), lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with asyncio.TaskGroup() as group:
            group.create_task(server.serve(sockets=[listener]))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                yield client
            server.should_exit = True


@pytest.fixture
def bearer(settings: Settings) -> Bearer:
    """The headers of a user's request."""
    return lambda user: {"authorization": f"Bearer {mint(settings, user=user, seconds=60)}"}
