"""A Struct as a MongoDB document and back: the first field is the key and is stored as `_id`."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from bson.int64 import Int64

__all__ = ["from_document", "to_document"]

T = TypeVar("T", bound=msgspec.Struct)


def to_document(record: msgspec.Struct) -> dict[str, Any]:
    """The BSON-ready document of `record`; fields at their default are left out where the Struct says so."""
    document = msgspec.to_builtins(record, builtin_types=(datetime,))
    assert isinstance(document, dict)
    return {"_id": document.pop(record.__struct_fields__[0]), **document}


def from_document(kind: type[T], document: Mapping[str, Any]) -> T:
    """The record that `to_document` stored; fields it does not know are ignored.

    Raises `msgspec.ValidationError` when a known field has the wrong type.
    """
    key = kind.__struct_fields__[0]
    return msgspec.convert(_plain({key: document["_id"], **document}), kind)


def _plain(value: Any) -> Any:
    """BSON's integers of more than 32 bits as `int`: they are read as a subclass, which msgspec refuses."""
    if isinstance(value, Int64):
        return int(value)
    if isinstance(value, dict):
        return {name: _plain(item) for name, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list) else value
