"""What a mongos of MongoDB 6.0 would refuse, seen in the commands that this process sends to a replica set.

Its rules for a sharded collection: an insert has the shard key; an update or delete of one document names it,
or the `_id`; an upsert and a findAndModify name the shard key; and nothing changes it.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pymongo.monitoring import (
    CommandFailedEvent,
    CommandListener,
    CommandStartedEvent,
    CommandSucceededEvent,
)

from tailrace.sharding import KEYS

__all__ = ["Router", "wrong"]

_TESTS = str(Path(__file__).parent)
_DRIVERS = ("/pymongo/", "/motor/")


class Router(CommandListener):
    """Listens to every client that is made after it was registered."""

    def __init__(self) -> None:
        self.refused: list[str] = []

    def started(self, event: CommandStartedEvent) -> None:
        """Hold a command against the rules."""
        collection = event.command.get(event.command_name)
        if not event.database_name.startswith("test_") or not isinstance(collection, str):
            return
        if collection not in KEYS or _is_a_tests():
            return
        found = wrong(event.command_name, event.command, KEYS[collection])
        self.refused += [f"{event.command_name} on {collection}: {each}" for each in found]

    def succeeded(self, event: CommandSucceededEvent) -> None:
        """Nothing."""

    def failed(self, event: CommandFailedEvent) -> None:
        """Nothing."""


def _is_a_tests() -> bool:
    """Whether a test itself asks, and not the code that it tests."""
    frame = sys._getframe(2)
    while frame.f_back is not None and any(part in frame.f_code.co_filename for part in _DRIVERS):
        frame = frame.f_back
    return frame.f_code.co_filename.startswith(_TESTS)


def wrong(name: str, command: Mapping[str, Any], key: str) -> list[str]:
    """What a mongos would say to the command on a collection that is sharded by that key."""
    if name == "insert":
        return [f"no {key} in {each}" for each in command["documents"] if key not in each]
    if name == "findAndModify":
        return [] if _names(command["query"], key) else [f"no {key} in {command['query']}"]
    if name == "update":
        return [wrong for each in command["updates"] for wrong in _wrong_update(each, key)]
    if name == "delete":
        return [
            f"no {key} in {each['q']}"
            for each in command["deletes"]
            if each["limit"] and not _one(each["q"], key)
        ]
    return []


def _wrong_update(update: Mapping[str, Any], key: str) -> list[str]:
    query, wrong = update["q"], []
    if update.get("upsert") and not _names(query, key):
        wrong.append(f"an upsert without {key}: {query}")
    if not update.get("multi") and not _one(query, key):
        wrong.append(f"no {key} in {query}")
    return wrong


def _one(query: Mapping[str, Any], key: str) -> bool:
    return _names(query, key) or _names(query, "_id")


def _names(query: Mapping[str, Any], field: str) -> bool:
    """Whether the query names one value of the field."""
    value = query.get(field)
    if isinstance(value, Mapping):
        return set(value) == {"$eq"}
    return isinstance(value, str) or (value is not None and not isinstance(value, Sequence))
