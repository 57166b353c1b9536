"""Unique indexes begin with their shard keys, every collection has its place, and the listener hears."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from tests.router import wrong

from tailrace.mongo import INDEXES
from tailrace.sharding import KEYS, UNSHARDED, commands

ROOT = Path(__file__).parents[2]


def sources() -> str:
    return "\n".join(
        path.read_text() for place in ("src", "workers") for path in (ROOT / place).rglob("*.py")
    )


def test_every_unique_index_begins_with_the_shard_key() -> None:
    unique = {
        (name, next(iter(index.document["key"])))
        for name, indexes in INDEXES.items()
        for index in indexes
        if index.document.get("unique") and name in KEYS
    }
    assert unique
    assert unique <= set(KEYS.items())


def test_every_collection_is_sharded_or_said_to_be_on_one_shard() -> None:
    named = set(re.findall(r'database\["(\w+)"\]|get_collection\(\s*"(\w+)"', sources()))
    collections = {one or other for one, other in named}
    assert collections | INDEXES.keys() | {"doctor"} == KEYS.keys() | UNSHARDED
    assert not KEYS.keys() & UNSHARDED


def test_commands_name_the_database_and_one_key_each() -> None:
    hashed, ranges = commands("t", ranges=False), commands("t", ranges=True)
    assert hashed[0] == {"shardCollection": "t.events", "key": {"session_id": "hashed"}}
    assert ranges[0] == {"shardCollection": "t.events", "key": {"session_id": 1}}
    assert {each["shardCollection"] for each in hashed} == {f"t.{name}" for name in KEYS}


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("insert", {"documents": [{"_id": 1}]}),
        ("findAndModify", {"query": {"_id": "r1"}}),
        ("findAndModify", {"query": {"session_id": {"$in": ["s1"]}}}),
        ("update", {"updates": [{"q": {"_id": "r1"}, "u": {}, "upsert": True}]}),
        ("update", {"updates": [{"q": {"state": "queued"}, "u": {}}]}),
        ("delete", {"deletes": [{"q": {"state": "queued"}, "limit": 1}]}),
    ],
)
def test_what_a_mongos_would_refuse_is_seen(name: str, command: dict[str, Any]) -> None:
    assert wrong(name, command, "session_id")


@pytest.mark.parametrize(
    ("name", "command"),
    [
        ("insert", {"documents": [{"_id": 1, "session_id": "s1"}]}),
        ("findAndModify", {"query": {"_id": "r1", "session_id": "s1"}}),
        ("update", {"updates": [{"q": {"_id": "r1"}, "u": {}}]}),
        ("update", {"updates": [{"q": {"state": "queued"}, "u": {}, "multi": True}]}),
        ("update", {"updates": [{"q": {"session_id": {"$eq": "s1"}}, "u": {}, "upsert": True}]}),
        ("delete", {"deletes": [{"q": {"state": "queued"}, "limit": 0}]}),
        ("find", {"filter": {}}),
    ],
)
def test_what_a_mongos_takes_is_let_through(name: str, command: dict[str, Any]) -> None:
    assert not wrong(name, command, "session_id")
