"""What BSON and JSON refuse is carried as text, and never kills a run."""

from __future__ import annotations

import datetime
import uuid
from collections.abc import Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any

import bson
import msgspec
import pytest

from tailrace.carry import MAX_DEPTH, MAX_EVENT_BYTES, carry_data, is_storable


def carry(value: Any) -> Any:
    return carry_data({"value": value})["value"]


class Unshowable:
    def __str__(self) -> str:
        raise RuntimeError


class Color(str, Enum):  # noqa: UP042 - a StrEnum shows itself well
    RED = "red"


class Lazy(Mapping[str, int]):
    def __getitem__(self, key: str) -> int:
        return 1

    def __iter__(self) -> Iterator[str]:
        return iter("ab")

    def __len__(self) -> int:
        return 2


@pytest.mark.parametrize(
    ("value", "carried"),
    [
        (b"text", "text"),
        (b"\xff", "base64:/w=="),
        ({3, 1}, [1, 3]),
        ((1, 2), [1, 2]),
        (2**63, str(2**63)),
        (-(2**63), -(2**63)),
        (float("nan"), "nan"),
        (float("-inf"), "-inf"),
        ("\ud800x", "?x"),
        ({"a\0b": 1}, {"a␀b": 1}),
        ({1: True}, {"1": True}),
        ([{"$ref": "#/a", "$id": "b", "c": 1}], [{"$ref": "#/a", "＄id": "b", "c": 1}]),
        ({"$ref": "#/a"}, {"$ref": "#/a"}),
        (Color.RED, "red"),
        (datetime.date(2026, 11, 22), "2026-11-22"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Decimal("1.10"), "1.10"),
        (Unshowable(), "<Unshowable that cannot be shown: RuntimeError>"),
        (Lazy(), {"a": 1, "b": 1}),
        ("\0\r\n\u2028<b>", "\0\r\n\u2028<b>"),
    ],
)
def test_a_refused_value_becomes_text(value: Any, carried: Any) -> None:
    assert carry(value) == carried
    assert type(carry(value)) is type(carried)
    assert bson.decode(bson.encode({"value": carry(value)})) == {"value": carried}


def test_an_integer_of_a_million_digits_does_not_hang() -> None:
    assert carry(1 << 4_000_000).startswith("0x1")


def test_a_long_text_is_cut_with_a_marker_that_counts() -> None:
    cut = carry("é" * MAX_EVENT_BYTES)
    kept, marker = cut.split("…")
    assert len(kept.encode()) <= MAX_EVENT_BYTES
    assert marker == f" [cut: {MAX_EVENT_BYTES - len(kept)} more characters]"


@pytest.mark.parametrize(
    "value", [["x" * 1000] * 10_000, {str(n): n for n in range(200_000)}, [[]] * 500_000]
)
def test_many_values_are_cut_too(value: Any) -> None:
    assert len(msgspec.json.encode(carry(value))) < 3 * MAX_EVENT_BYTES


def test_a_long_field_leaves_the_short_ones_whole_and_the_others_of_their_kind() -> None:
    long = "x" * MAX_EVENT_BYTES
    carried = carry_data({"output": long, "calls": [{"a": long}, {"a": 1}], "more": {"b": 2}, "status": "ok"})
    assert carried["output"].endswith("more characters]")
    assert carried["calls"] == [{"…": "[cut]"}]
    assert (carried["more"], carried["status"]) == ({"…": "[cut]"}, "ok")
    assert list(carried) == ["output", "calls", "more", "status"]


def test_a_value_that_holds_itself_ends() -> None:
    loop: list[Any] = []
    loop.append(loop)
    assert "nested too deeply" in str(carry(loop))


def test_a_plain_value_is_left_alone() -> None:
    plain = {"a": [1, 2.5, None, True, "x"], "$b.c": {"d": {}}}
    assert carry_data(plain) == plain
    assert is_storable(plain)


def test_what_would_be_changed_is_not_storable() -> None:
    deep: Any = 1
    for _ in range(MAX_DEPTH + 2):
        deep = [deep]
    for value in (2**64, {"\0": 1}, deep):
        assert not is_storable(value)
