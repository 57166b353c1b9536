"""What an agent may say though neither BSON nor JSON likes it, and what of it readers must be shown."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["MARK", "TEXTS", "VALUES", "missing"]

MARK = "hostile"  # of the custom events, so that the checker knows them
TEXTS = (
    "a line\r\nand a line\n\ndata: {}\n\nevent: finish\n\n",
    "U+2028 \u2028, U+2029 \u2029, U+0085 \u0085, NUL \0, BOM \ufeff, DEL \x7f, ESC \x1b[31m",
    "<script>alert(1)</script> & \" ' \\ </textarea>",
    "é e\u0301 \U0001f469\u200d\U0001f469\u200d\U0001f467 \u202eright to left\u202c",
)
_CARRIED = {f"text {nth}": text for nth, text in enumerate(TEXTS)} | {
    "int64": 2**63 - 1,
    "100 KB in 200 pieces": ["x" * 500] * 200,
    "None": None,
    "event's own keys": {"seq": 0, "event_id": "x:1", "run_id": "y", "event_type": "finish", "data": {}},
    "operators": {"$set": {"a.b": 1}, "": "", "_id": 1, "__proto__": {"x": 1}},
}
# By name what is emitted. Of `_CARRIED`, readers must be shown the very same.
VALUES: dict[str, Any] = _CARRIED | {
    "bytes": b"\xff\0\x80",
    "set": {3, 1, 2},
    "NaN": math.nan,
    "infinities": [math.inf, -math.inf],
    "2**63": 2**63,
    "10**5000": 10**5000,
    "NUL in a key": {"a\0b": 1},
    "number as a key": {1: 2, None: 3},
    "lone surrogates": "\ud800 and \udfff",
    "lone surrogate in a key": {"\ud800": 1},
    "1 MB": "m" * 1_000_000,
    "17 MB": "M" * 17_000_000,
    "an object": object(),
    "deep": None,  # made by `_deep`, below
}


def _deep(levels: int) -> list[Any]:
    value: list[Any] = []
    for _ in range(levels):
        value = [value]
    return value


VALUES["deep"] = _deep(5_000)


def missing(shown: list[dict[str, Any]]) -> list[str]:
    """What readers should have been shown and were not; `shown` holds a run's hostile custom values."""
    by_name = {value["name"]: value.get("it") for value in shown}
    wrong = [name for name in VALUES if name not in by_name]
    return wrong + [name for name, value in _CARRIED.items() if name in by_name and by_name[name] != value]
