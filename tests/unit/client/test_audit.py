"""What an audit finds in a session, and how a terminal shows it."""

from __future__ import annotations

import msgspec
from tests.unit.client.frames import control, event, run_of

from tailrace.client.audit import Audit, SessionReport
from tailrace.client.frame import Frame
from tailrace.client.lines import report_of


def audit(frames: list[Frame], *, begins: int = 1, tail: int | None = None) -> SessionReport:
    ends = frames[-1].seq if tail is None and frames else tail
    found = Audit("s")
    for frame in (control("stream.ready", from_seq=begins, tail_seq=ends or 0), *frames):
        found.take(frame)
    return found.report()


def faults(report: SessionReport) -> list[str]:
    return [*report.faults, *(fault for run in report.runs for fault in run.faults)]


def test_a_whole_session_is_verified_run_by_run() -> None:
    report = audit(run_of("a", range(1, 5)) + run_of("b", range(5, 8), status="error"))
    assert report.verified
    assert (report.first_seq, report.last_seq) == (1, 7)
    shown = [(run.run_id, run.first_seq, run.last_seq, run.events, run.status) for run in report.runs]
    assert shown == [("a", 1, 4, 4, "success"), ("b", 5, 7, 3, "error")]
    assert [run.digest for run in report.runs] == ["ok", "ok"]


def test_a_changed_event_is_laid_to_its_run() -> None:
    frames = run_of("a", range(1, 5)) + run_of("b", range(5, 9))
    frames[5] = msgspec.structs.replace(frames[5], raw=frames[5].raw.replace("«", "<"))
    report = audit(frames)
    assert [(run.run_id, run.digest) for run in report.runs] == [("a", "ok"), ("b", "mismatch")]
    assert not report.verified


def test_an_event_that_is_missing_is_named() -> None:
    frames = run_of("a", range(1, 9))
    assert audit(frames[:3] + frames[4:]).faults == ["event 4 is missing"]
    assert audit(frames[:3] + frames[6:]).faults == ["events 4 to 6 are missing, or cannot be reached"]


def test_a_replay_that_ends_before_the_log_is_a_fault() -> None:
    report = audit(run_of("a", range(1, 9))[:5], tail=8)
    assert faults(report) == ["events 6 to 8 are missing, or cannot be reached"]


def test_a_run_that_goes_on_is_no_fault() -> None:
    report = audit(run_of("a", range(1, 9))[:5])
    assert report.verified
    assert [(run.status, run.digest) for run in report.runs] == [("running", "running")]


def test_an_expired_beginning_is_no_fault_and_a_lost_one_is() -> None:
    rest = run_of("a", range(1, 9))[3:]
    expired = audit(rest, begins=4)
    assert expired.verified
    assert expired.runs[0].digest == "partial"
    lost = audit(run_of("a", range(1, 9))[1:], begins=1)
    assert faults(lost) == ["event 1 is missing", "it begins with message_delta at 2, not with run_queued"]


def test_what_expires_while_it_is_read_does_not_count() -> None:
    found = Audit("s")
    reset = control("stream.reset", reason="expired", from_seq=5)
    for frame in (*run_of("a", range(1, 9))[:2], reset, *run_of("b", range(5, 9))):
        found.take(frame)
    report = found.report()
    assert report.verified
    assert (report.first_seq, [run.run_id for run in report.runs]) == (5, ["b"])


def test_what_stands_after_a_finish_is_a_fault_be_it_another_finish() -> None:
    late = event(5, "a", "message_delta", delta="late")
    again = event(6, "a", "finish", status="success", last_seq=6, digest="0")
    report = audit([*run_of("a", range(1, 5)), late, again])
    assert faults(report) == [
        "after its finish comes message_delta at 5",
        "after its finish comes finish at 6",
    ]
    assert report.runs[0].digest == "ok"


def test_a_finish_without_digest_or_in_another_place_is_a_fault() -> None:
    assert faults(audit(run_of("a", range(1, 5), digest=None))) == ["its finish carries no digest"]
    assert faults(audit(run_of("a", range(1, 5), last_seq=9))) == ["its finish at 4 says that it stands at 9"]


def test_a_session_without_events_is_verified() -> None:
    assert report_of(audit([])) == "Session s, no events: verified."


def test_a_person_sees_a_line_a_run_a_line_a_fault_and_the_verdict() -> None:
    frames = run_of("a", range(1, 5)) + run_of("b\x1b[31m", range(5, 9), digest="0", status="error")
    assert report_of(audit(frames)).splitlines() == [
        "run                               events  status    digest",
        "a                                      4  success   ok",
        "b[31m                                  4  error     mismatch",
        "  ✗ its events do not lead to its digest: one is missing, doubled or changed",
        "Session s, events 1 to 8: NOT verified.",
    ]
