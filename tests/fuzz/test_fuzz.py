"""The short form of `make fuzz`: the whole list once, a little of schemathesis, and witnesses beside it."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.e2e.shared import shared_settings
from tests.fuzz.campaign import Campaign, FuzzStack
from tests.fuzz.case import Case, judge, problem_in
from tests.fuzz.output import broken_frames
from tests.fuzz.wire import Answer

PROBLEM = b'{"type":"about:blank","title":"Bad Request","status":400,"detail":"No."}'


@pytest.fixture
def campaign(mongo_url: str, redis_url: str, tmp_path: Path) -> Campaign:
    """Not started; the processes live as long as the fixture's user holds them."""
    return Campaign(FuzzStack(shared_settings(mongo_url, redis_url), tmp_path), seed=1, witnesses=2)


async def test_bad_input_is_refused_and_nobody_else_notices(campaign: Campaign, tmp_path: Path) -> None:
    with campaign.stack:
        await campaign.run(tmp_path / "schemathesis", minutes=0, examples=1, stateful=False)
    report = campaign.report()
    assert not report["wrong"], "\n".join(report["wrong"][:20])
    assert report["cases"] > 600
    assert report["requests of schemathesis"] > 100
    assert all(witness.seen.runs for witness in campaign.witnesses)


def answer(status: int, body: bytes, media_type: str = "application/problem+json") -> Answer:
    return Answer(status=status, headers={"content-type": media_type}, body=body, ended=True)


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (answer(500, PROBLEM.replace(b"400", b"500")), "500 instead of"),
        (answer(400, b"Invalid HTTP request received.", "text/plain"), "400 as text/plain"),
        (answer(400, PROBLEM.replace(b"400", b"404")), "the problem says 404"),
        (answer(400, PROBLEM.replace(b"No.", b"pymongo.errors")), "the inside of the server"),
        (answer(400, PROBLEM.replace(b'"detail"', b'"details"')), "no \\['detail'\\]"),
        (answer(400, PROBLEM.replace(b"No.", b"witness-secret-0")), "somebody else"),
    ],
)
def test_a_wrong_answer_is_seen(given: Answer, why: str) -> None:
    case = Case(topic="a", name="b", parts=(), right=frozenset({400}))
    assert judge(case, answer(400, PROBLEM)) is None
    with pytest.raises(AssertionError, match=why):
        raise AssertionError(judge(case, given))


FRAME = (
    b"id: s:1\nevent: status\ndata: "
    b'{"event_id":"s:1","session_id":"s","run_id":"r","seq":1,"event_type":"run_queued"}\n\n'
)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        (FRAME.replace(b'"seq"', b'\n\ndata: {}\n\n"seq"'), "no frame"),
        (FRAME.replace(b"run_id", b"run\rid"), "a CR"),
        (FRAME.replace(b"status", b"evil"), "run_queued as evil"),
        (FRAME.replace(b"id: s:1", b"id: s:2"), "at 1 of s"),
        (FRAME + FRAME, "at 2 of s"),
        (FRAME.replace(b"id: s:1\n", b""), "status without an id"),
    ],
)
def test_a_broken_frame_is_seen(body: bytes, why: str) -> None:
    assert list(broken_frames(FRAME, "s")) == []
    assert any(why in found for found in broken_frames(body, "s"))


def test_a_good_answer_with_a_missing_word_is_wrong() -> None:
    assert problem_in(answer(400, PROBLEM)) is None
    case = Case(topic="a", name="b", parts=(), right=frozenset({400}), holds=b"reason")
    assert "no b'reason'" in (judge(case, answer(400, PROBLEM)) or "")
