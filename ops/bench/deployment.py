"""One mongod and one Valkey for all systems, and a fresh database for each measurement."""

from __future__ import annotations

import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
from pymongo import MongoClient

from tailrace.embedded import Mongod, Valkey
from tailrace.mongo import COMPRESSED, INDEXES
from tailrace.settings import Settings

__all__ = ["Deployment", "Place", "deployment", "owner"]

_CACHE_GB = 1.5
_SECRET = "only-for-this-measurement-on-loopback"


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where one measurement keeps its data."""

    mongodb_url: str
    redis_url: str
    database: str
    directory: Path  # for logs
    sessions: tuple[str, ...]  # each of them has an owner of its own

    def settings(self, **changed: Any) -> Settings:
        """Tailrace's settings there: without limits, for one machine is all its users."""
        return Settings(
            mongodb_url=self.mongodb_url,
            mongodb_db=self.database,
            redis_url=self.redis_url,
            queue=self.database,
            jwt_secret=_SECRET,
            langfuse_enabled=False,
            max_runs_per_minute=0,
            max_concurrent_runs=0,
            max_concurrent_streams=0,
            log_level="warning",
            **changed,
        )


def owner(session_id: str) -> str:
    """Who owns the session."""
    return f"user-{session_id}"


class Deployment:
    """The running servers."""

    def __init__(self, mongod: Mongod, valkey: Valkey, directory: Path) -> None:
        self.mongod = mongod
        self.valkey = valkey
        self.directory = directory
        self.client: MongoClient[dict[str, Any]] = MongoClient(mongod.url, appname="bench")
        self._numbers = itertools.count(1)

    @contextmanager
    def place(self, sessions: int) -> Iterator[Place]:
        """A database with that many empty sessions and all indexes; dropped on exit."""
        name = f"bench_{next(self._numbers):04d}"
        place = Place(
            mongodb_url=self.mongod.url,
            redis_url=self.valkey.url,
            database=name,
            directory=self.directory,
            sessions=tuple(f"s{number:05d}" for number in range(sessions)),
        )
        database = self.client[name]
        for collection, options in COMPRESSED.items():
            database.create_collection(collection, **options)
        for collection, indexes in INDEXES.items():
            database[collection].create_indexes(list(indexes))
        self.add_sessions(place, place.sessions)
        try:
            yield place
        finally:
            self.client.drop_database(name)

    def add_sessions(self, place: Place, sessions: Sequence[str]) -> None:
        """Make sessions that their owners may read."""
        now = time.time()
        documents = [
            {
                "_id": name,
                "owner": owner(name),
                "created_at": now,
                "updated_at": now,
                "title": "",
                "last_seq": 0,
            }
            for name in sessions
        ]
        if documents:
            self.client[place.database].sessions.insert_many(documents)

    def forget(self, place: Place, sessions: Sequence[str]) -> None:
        """Delete the events of sessions, so that they begin again."""
        self.client[place.database].events.delete_many({"session_id": {"$in": list(sessions)}})


@contextmanager
def deployment() -> Iterator[Deployment]:
    """The servers, in a temporary directory; ended on exit. Raises `EmbeddedUnavailable`."""
    with tempfile.TemporaryDirectory(prefix="tailrace-bench-") as name:
        directory = Path(name)
        mongod = Mongod(directory / "mongo", log=directory / "mongod.log", cache_gb=_CACHE_GB)
        valkey = Valkey(directory / "valkey", log=directory / "valkey.log")
        try:
            mongod.start()
            valkey.start()
            yield Deployment(mongod, valkey, directory)
        finally:
            valkey.stop()
            mongod.stop()
