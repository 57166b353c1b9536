"""Events as documents, as JSON and as ids."""

from __future__ import annotations

from datetime import UTC, datetime

import bson
import msgspec
import pytest

from tailrace.errors import CursorError
from tailrace.events import CHANNELS, EVENT_TYPES, Event, event_id, seq_of


def event(**changes: object) -> Event:
    whole = Event(
        event_id="s1:7",
        session_id="s1",
        run_id="r1",
        attempt=1,
        seq=7,
        timestamp=1763800000.25,
        event_type="message_delta",
        message_id="m1",
        data={"delta": "Hello", "offset": 0},
        expires_at=datetime(2026, 11, 29, tzinfo=UTC),
    )
    return msgspec.structs.replace(whole, **changes)


def test_the_json_holds_the_data_at_its_top_level_and_no_expiry() -> None:
    assert event().to_json() == (
        b'{"event_id":"s1:7","session_id":"s1","run_id":"r1","attempt":1,"seq":7,"timestamp":1763800000.25,'
        b'"event_type":"message_delta","message_id":"m1","delta":"Hello","offset":0}'
    )


def test_the_json_is_the_same_bytes_after_a_round_trip_through_bson() -> None:
    awkward = event(
        data={"value": {"b": 1.0, "a": [1, "\u2028", "\r\n\ndata: x"]}}, tags=("t",), metadata={"k": 1}
    )
    stored = bson.decode(bson.encode(awkward.to_document()))
    assert Event.from_document(stored).to_json() == awkward.to_json()
    assert b"\n" not in awkward.to_json()
    assert b"\r" not in awkward.to_json()


def test_the_id_is_the_key_and_comes_first() -> None:
    assert next(iter(event().to_document().items())) == ("_id", "s1:7")


def test_every_type_has_a_channel() -> None:
    assert set(CHANNELS) == set(EVENT_TYPES)


def test_an_id_points_at_its_seq() -> None:
    assert seq_of(event_id("a-b_C", 42), "a-b_C") == 42


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "7",
        "s1:",
        "s1:0",
        "s1:-1",
        "s1:07",
        "s1:1 ",
        "s1:١",
        f"s1:{2**63}",
        "s1:1\n",
        "s1:1\0",
        "x" * 65_536,
    ],
)
def test_a_malformed_cursor_is_refused(cursor: str) -> None:
    with pytest.raises(CursorError) as refused:
        seq_of(cursor, "s1")
    assert refused.value.reason == "malformed"


def test_a_cursor_of_another_session_is_refused() -> None:
    with pytest.raises(CursorError) as refused:
        seq_of("s2:1", "s1")
    assert refused.value.reason == "other_session"
