"""What a reader can say of a run at its finish."""

from __future__ import annotations

import msgspec
import pytest
from tests.unit.client.frames import control, event, run_of

from tailrace.client.chains import Chains, Verdict
from tailrace.client.frame import Frame


def verdicts(frames: list[Frame]) -> list[Verdict]:
    chains = Chains()
    return [verdict for frame in frames if (verdict := chains.take(frame))]


def test_a_run_read_from_its_first_event_is_proven_at_its_finish() -> None:
    assert verdicts(run_of("r", range(1, 9))) == ["ok"]


def test_two_runs_that_are_interleaved_are_two_chains() -> None:
    frames = sorted(run_of("a", (1, 3, 5, 8)) + run_of("b", (2, 4, 6, 7)), key=lambda frame: frame.seq or 0)
    assert verdicts(frames) == ["ok", "ok"]


def test_a_second_attempt_goes_on_with_the_chain() -> None:
    first = event(1, "r", "run_queued")
    again = event(2, "r", "run_queued", attempt=2)
    chains = Chains()
    assert [chains.take(frame) for frame in (first, again)] == [None, None]
    joined_late = Chains()
    joined_late.take(again)
    assert joined_late.take(event(3, "r", "finish", digest="0")) == "partial"


@pytest.mark.parametrize("nth", [0, 3])
def test_one_changed_character_shows(nth: int) -> None:
    frames = run_of("r", range(1, 9))
    frames[nth] = msgspec.structs.replace(frames[nth], raw=frames[nth].raw.replace("r", "R", 1))
    assert verdicts(frames) == ["mismatch"]


def test_a_missing_event_shows() -> None:
    frames = run_of("r", range(1, 9))
    assert verdicts(frames[:3] + frames[4:]) == ["mismatch"]


def test_a_run_joined_in_its_middle_is_not_judged() -> None:
    assert verdicts(run_of("r", range(1, 9))[1:]) == ["partial"]


def test_after_a_reset_what_came_before_does_not_count() -> None:
    frames = run_of("r", range(1, 9))
    assert verdicts([*frames[:4], control("stream.reset"), *frames[2:]]) == ["partial"]
    assert verdicts([*frames[:4], control("stream.reset"), *frames]) == ["ok"]


def test_a_finish_without_a_digest_is_named() -> None:
    assert verdicts(run_of("r", (1, 2), digest=None)) == ["missing"]
