"""A Struct as a MongoDB document and back: the first field is the key and is stored as `_id`."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
from bson.int64 import Int64

from tailrace.errors import DocumentDamaged

__all__ = ["converted", "from_document", "readable", "to_document"]

log = logging.getLogger(__name__)

T = TypeVar("T", bound=msgspec.Struct)


def to_document(record: msgspec.Struct) -> dict[str, Any]:
    """The BSON-ready document of `record`; fields at their default are left out where the Struct says so."""
    document = msgspec.to_builtins(record, builtin_types=(datetime,))
    assert isinstance(document, dict)
    return {"_id": document.pop(record.__struct_fields__[0]), **document}


def from_document(kind: type[T], document: Mapping[str, Any]) -> T:
    """The record that `to_document` stored; fields it does not know are ignored.

    Raises `DocumentDamaged` when a known field is missing or has the wrong type.
    """
    key = kind.__struct_fields__[0]
    return converted(_plain({key: document["_id"], **document}), kind)


def readable(kind: type[T], documents: Iterable[Mapping[str, Any]]) -> list[T]:
    """The records of those `documents` that can be read, for whoever looks after all of them.

    One that somebody has damaged must not keep the others waiting. It is told of once.
    """
    records = []
    for document in documents:
        try:
            records.append(from_document(kind, document))
        except DocumentDamaged as error:
            _tell(str(error), error.session_id)
    return records


@lru_cache(maxsize=1_000)
def _tell(message: str, session_id: str | None) -> None:
    words = {"action": "damaged", "session_id": session_id, "error": message}
    log.error("Stored data cannot be read, and is passed over", extra=words)


def converted(stored: Mapping[str, Any], kind: type[T]) -> T:
    """The record whose fields are `stored`. Raises `DocumentDamaged` as `from_document` does."""
    try:
        return msgspec.convert(stored, kind)
    except msgspec.ValidationError as error:
        # Nothing of what a client sent is decoded here: whoever asked has done nothing wrong.
        key = stored.get("_id", stored.get("event_id"))
        session_id = stored.get("session_id")
        raise DocumentDamaged(
            f"{kind.__name__} {key!r:.100}: {error}"[:300],
            session_id=session_id if isinstance(session_id, str) else None,
        ) from error


def _plain(value: Any) -> Any:
    """BSON's integers of more than 32 bits as `int`: they are read as a subclass, which msgspec refuses."""
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
