"""The API in this process, over a real MongoDB and a real Valkey, and users to ask it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

import pytest
from litestar import Litestar
from litestar.testing import AsyncTestClient

from tailrace.api.app import create_app
from tailrace.mongo import Database
from tailrace.settings import Settings
from tailrace.tokens import mint

Bearer = Callable[[str], dict[str, str]]


@pytest.fixture
async def api(settings: Settings, database: Database) -> AsyncIterator[AsyncTestClient[Litestar]]:
    async with AsyncTestClient(create_app(settings)) as client:
        yield client


@pytest.fixture
def bearer(settings: Settings) -> Bearer:
    """The headers of a user's request."""
    return lambda user: {"authorization": f"Bearer {mint(settings, user=user, seconds=60)}"}
