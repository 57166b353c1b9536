"""What the terminal understands and shows."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import pytest

from tailrace.client.frame import Frame
from tailrace.client.lines import answer_of, line_of, tool_line_of
from tailrace.client.since import since_of


def event(event_type: str, **data: Any) -> Frame:
    return Frame(event="x", data={"event_type": event_type, "timestamp": 1.5, **data}, id="s:7", seq=7)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        (None, None),
        ("30s", 99_970),
        ("10m", 99_400),
        ("2h", 92_800),
        ("1d", 13_600),
        ("900d", 0),
        ("1700000000.5", 1_700_000_000.5),
        (12, 12),
        ("2026-01-31T09:30:00+00:00", 1_769_851_800),
        ("2026-01-31", datetime(2026, 1, 31).timestamp()),
    ],
)
def test_moments_a_person_types(text: str | float | None, seconds: float | None) -> None:
    assert since_of(text, now=100_000.0) == seconds


@pytest.mark.parametrize("text", ["", "soon", "nan", "inf", "-5", "10 minutes", "٣m", "1e999"])
def test_what_is_no_moment_is_refused_with_what_is_allowed(text: str) -> None:
    with pytest.raises(ValueError, match="10m or 2h"):
        since_of(text, now=100_000.0)


def test_a_line_has_time_place_type_and_text() -> None:
    _, place, kind, *text = line_of(event("message_delta", delta="one\ntwo")).split()
    assert (place, kind, text) == ("7", "message_delta", ["one⏎two"])


@pytest.mark.parametrize(
    ("frame", "text"),
    [
        (event("tool_start", name="clock", input={"zone": "UTC"}), '→ clock {"zone":"UTC"}'),
        (event("tool_end", name="clock", output="noon", status="success"), "✓ clock noon"),
        (event("tool_end", name="clock", output="no", status="error"), "✗ clock no"),
    ],
)
def test_a_tool_is_one_line(frame: Frame, text: str) -> None:
    assert tool_line_of(frame) == text
    assert line_of(frame).endswith(text)


def test_an_agents_text_cannot_speak_to_the_terminal() -> None:
    assert answer_of(event("message_delta", delta="\x1b]0;evil\x07\x9b2Ja\tb\n")) == "]0;evil2Ja\tb\n"
    assert "\x1b" not in line_of(event("run_error", code="x", message="\x1b[31m"))


def test_a_long_text_is_cut_in_a_line() -> None:
    assert len(line_of(event("message_delta", delta="x" * 1000))) < 150
