"""One real mongod and one real valkey-server for the whole suite; a fresh database for each test."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Iterator
from typing import Any, Literal
from uuid import uuid4

import msgspec
import pytest
from pymongo import MongoClient, monitoring
from redis import Redis
from tests.e2e.stack import Stack
from tests.router import Router

from tailrace.embedded import mongod, valkey
from tailrace.mongo import Database, connect, ensure_indexes
from tailrace.settings import Settings

JWT_SECRET = "only-for-the-tests-of-this-repository"

# A shell ignores SIGINT in its background jobs, and all that they start would: a test of Ctrl-C, too.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROUTER = Router()
monitoring.register(ROUTER)


@pytest.fixture(autouse=True)
def _a_sharded_cluster_would_take_every_command() -> Iterator[None]:
    """Whatever this process asks of MongoDB, in any test."""
    ROUTER.refused.clear()
    yield
    assert ROUTER.refused == []


@pytest.fixture(scope="session")
def mongo_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A replica set of one that knows `failCommand`."""
    with mongod(tmp_path_factory.mktemp("mongo") / "data", test_commands=True) as url:
        yield url


@pytest.fixture(scope="session")
def redis_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with valkey(tmp_path_factory.mktemp("valkey") / "data") as url:
        yield url


@pytest.fixture(scope="session")
def mongo(mongo_url: str) -> Iterator[MongoClient[dict[str, Any]]]:
    """A blocking client, for what a test looks at behind the back of the code."""
    client: MongoClient[dict[str, Any]] = MongoClient(mongo_url)
    with client:
        yield client


@pytest.fixture
def mongo_driver() -> Literal["pymongo", "motor"]:
    """Parametrize it to run a test over both drivers."""
    return "pymongo"


@pytest.fixture
def settings(
    mongo_url: str,
    redis_url: str,
    mongo: MongoClient[dict[str, Any]],
    mongo_driver: Literal["pymongo", "motor"],
) -> Iterator[Settings]:
    """Settings with a database and a queue of the test's own; Redis is empty."""
    name = f"test_{uuid4().hex[:16]}"
    with Redis.from_url(redis_url) as redis:
        redis.flushdb()
    yield Settings(
        mongodb_url=mongo_url,
        mongodb_db=name,
        mongo_driver=mongo_driver,
        redis_url=redis_url,
        queue=name,
        jwt_secret=JWT_SECRET,
        langfuse_enabled=False,
    )
    mongo.drop_database(name)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """The test's own database, with its indexes."""
    async with connect(settings) as database:
        await ensure_indexes(database)
        yield database


@pytest.fixture
def stack(settings: Settings) -> Iterator[Stack]:
    """A real API process and a real worker process; the offline model is quick."""
    with Stack(msgspec.structs.replace(settings, offline_tokens_per_second=300.0)) as stack:
        yield stack
