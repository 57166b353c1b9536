"""Carries any value through BSON and JSON: what they refuse becomes text, what is too large is cut.

A run must never die because of a value that a tool returned, and must not fill the log with one either.
"""

from __future__ import annotations

import base64
import math
import sys
from collections.abc import Mapping
from datetime import date, datetime, time
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

__all__ = ["MAX_DEPTH", "MAX_EVENT_BYTES", "MAX_MESSAGE_BYTES", "carry_data", "is_storable"]

MAX_EVENT_BYTES = 256 * 1024  # of UTF-8 text in one event; MongoDB's own limit is 16 MB
MAX_MESSAGE_BYTES = 192 * 1024  # of a message: the event that tells it has room for it, and need not cut it
MAX_DEPTH = 48  # BSON allows 100 levels; the envelope and the change stream's wrapper need some
MAX_NAME_BYTES = 1024  # of one mapping key
_INT64 = 2**63  # the first integer that BSON cannot hold
_LONG = (bytes, bytearray, memoryview, Mapping, list, tuple, set, frozenset)  # perhaps
_NODE_BYTES = 8  # what a number, a key or a bracket costs at least; bounds a million empty lists


def carry_data(data: Mapping[str, Any], *, limit: int = MAX_EVENT_BYTES) -> dict[str, Any]:
    """`data`, fields of ours, as a mapping that MongoDB stores and JSON encodes, the same after a round trip.

    Bytes, sets, dates and foreign objects become text or lists; integers beyond 64 bits, NaN and infinities
    become text; lone surrogates and NUL in keys are replaced. Past `limit` bytes of text, strings are cut
    with the marker `… [cut: N more characters]` and further items with `… [cut]`. Every field stays, and the
    short ones whole: the endless output of a tool does not push out its status.
    """
    budget = _Budget(limit)
    short_first = sorted(data, key=lambda key: not _is_short(data[key]))
    carried = {key: budget.value(data[key], 1) for key in short_first}
    return {_name(key): carried[key] for key in data}


def is_storable(value: Any) -> bool:
    """Whether `value`, as JSON decodes it, can be stored as it is: nothing would be changed or cut."""
    return bool(_Budget(sys.maxsize).value(value, 0) == value)


class _Budget:
    """The bytes that one event may still take."""

    __slots__ = ("left",)

    def __init__(self, left: int) -> None:
        self.left = left

    def value(self, value: Any, depth: int) -> Any:  # noqa: PLR0911 - one line a kind reads best
        if value is None or isinstance(value, bool):
            return self._spent(value)
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, int):
            return self._spent(int(value)) if -_INT64 <= value < _INT64 else self.text(_digits(value))
        if isinstance(value, float):
            return self._spent(float(value)) if math.isfinite(value) else self.text(repr(value))
        if depth >= MAX_DEPTH:
            return self.text("… [cut: nested too deeply]")
        if isinstance(value, Mapping):
            return self.mapping(value, depth)
        if isinstance(value, (list, tuple)):
            return self.items(value, depth)
        if isinstance(value, (set, frozenset)):
            return self.items(sorted(value, key=_shown), depth)
        return self.text(_as_text(value))

    def mapping(self, value: Mapping[Any, Any], depth: int) -> dict[str, Any]:
        carried: dict[str, Any] = {}
        for key, item in value.items():
            if self.left <= 0:
                carried["…"] = "[cut]"
                break
            name = _name(key)
            self.left -= len(name) + _NODE_BYTES
            carried[name] = self.value(item, depth + 1)
        if "$ref" in carried and "$id" in carried:
            # Together they are a reference to a document for the driver, which JSON Schema does not mean.
            carried["＄id"] = carried.pop("$id")
        return carried

    def items(self, value: Any, depth: int) -> list[Any]:
        carried: list[Any] = []
        for item in value:
            if self.left <= 0:
                # Of its neighbours' kind: what is a list of objects stays one.
                carried.append({"…": "[cut]"} if isinstance(item, Mapping) else "… [cut]")
                break
            carried.append(self.value(item, depth + 1))
        self.left -= _NODE_BYTES
        return carried

    def text(self, text: str) -> str:
        clean = _clean(text)
        size = len(clean) if clean.isascii() else len(clean.encode())
        room = max(self.left, 0)
        self.left -= size + _NODE_BYTES
        if size <= room:
            return clean
        kept = clean.encode()[:room].decode(errors="ignore")
        return f"{kept}… [cut: {len(clean) - len(kept)} more characters]"

    def _spent(self, value: Any) -> Any:
        self.left -= _NODE_BYTES
        return value


def _is_short(value: Any) -> bool:
    return len(value) <= MAX_NAME_BYTES if isinstance(value, str) else not isinstance(value, _LONG)


def _name(key: Any) -> str:
    return _clean(key if isinstance(key, str) else _shown(key))[:MAX_NAME_BYTES].replace("\0", "␀")


def _clean(text: str) -> str:
    """Text that UTF-8 can hold, and a plain `str` whatever subclass came in."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="replace").decode()
    return str.__str__(text)  # of an `Enum` that is a text, the text


def _digits(number: int) -> str:
    """Decimal, or hexadecimal past the length at which CPython refuses (and is quadratic)."""
    return str(number) if number.bit_length() < 4096 else hex(number)


def _as_text(value: Any) -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        raw = bytes(value)
        try:
            return raw.decode()
        except UnicodeDecodeError:
            return "base64:" + base64.b64encode(raw).decode()
    if isinstance(value, (datetime, date, time)):
        return value.isoformat()
    if isinstance(value, Enum):
        return _shown(value.value)
    if isinstance(value, (UUID, Decimal)):
        return str(value)
    return _shown(value)


def _shown(value: Any) -> str:
    """`str(value)`, also of an object whose own `__str__` raises."""
    try:
        return str(value)
    except Exception as error:
        return f"<{type(value).__name__} that cannot be shown: {type(error).__name__}>"
