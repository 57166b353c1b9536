"""How far a reader has come."""

from __future__ import annotations

import pytest

from tailrace.client.cursor import Cursor, Follow, Hole
from tailrace.client.errors import BadStream
from tailrace.client.frame import Frame


def event(seq: int, name: str = "delta") -> Frame:
    return Frame(event=name, data={"seq": seq}, id=f"s:{seq}", seq=seq)


def control(name: str) -> Frame:
    return Frame(event=name, data={})


def test_an_event_is_new_once() -> None:
    cursor = Cursor()
    assert [cursor.advance(event(seq)) for seq in (3, 4, 4, 3, 5)] == [True, True, False, False, True]


def test_the_next_request_goes_on_after_the_last_event() -> None:
    cursor = Cursor(since_timestamp=12.5, follow="session")
    assert cursor.params() == {"follow": "session", "since_timestamp": "12.500000"}
    cursor.advance(event(4))
    assert cursor.params() == {"follow": "session"}
    assert cursor.headers() == {"Last-Event-ID": "s:4"}


def test_a_hole_is_asked_for_again_and_not_for_ever() -> None:
    cursor = Cursor()
    cursor.advance(event(1))
    for _ in range(3):
        with pytest.raises(Hole):
            cursor.advance(event(3))
    with pytest.raises(BadStream, match="After event 1 comes event 3"):
        cursor.advance(event(3))


def test_one_run_may_have_other_runs_between_its_events() -> None:
    cursor = Cursor(run_id="r")
    assert cursor.advance(event(1))
    assert cursor.advance(event(9))


def test_a_reset_forgets_the_place() -> None:
    cursor = Cursor(last_event_id="other:7", since_timestamp=1.0)
    assert cursor.advance(control("stream.reset"))
    assert (cursor.headers(), cursor.params()) == ({}, {"follow": "run"})
    assert cursor.advance(event(1))


@pytest.mark.parametrize(
    ("follow", "last", "ended"),
    [
        ("run", event(9, "finish"), True),
        ("run", control("stream.ready"), True),
        ("run", event(9), False),
        ("run", control("stream.rotate"), False),
        ("none", control("stream.expired"), False),
        ("none", event(9), True),
        ("session", event(9, "finish"), False),
    ],
)
def test_a_stream_closed_in_good_order_ends_where_nothing_more_can_come(
    follow: Follow, last: Frame, ended: bool
) -> None:
    cursor = Cursor(follow=follow)
    cursor.advance(last)
    assert cursor.ended is ended
