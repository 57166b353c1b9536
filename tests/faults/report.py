"""The report: one line a guarantee with its figure, the silences by fault, and the timeline."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from tests.faults.session import Session, Violation
from tests.faults.timeline import Struck, attribute, limit_of

__all__ = ["as_text", "guarantees", "recoveries", "told"]

# The violations that break a guarantee, by their rule; every other rule is one of "Other promises".
_RULES = {
    "Durable": ("lost", "ledger", "all", "stored", "accepted", "replay", "hostile", "stuck"),
    "Ordered": ("hole", "order", "once", "same bytes", "digest", "time", "offset", "text"),
    "No phantom": ("phantom",),
    "One finish": ("finish", "document", "status"),
    "Fencing": ("fence", "superseded", "voids"),
}


def guarantees(
    sessions: Sequence[Session], struck: Sequence[Struck], figures: Mapping[str, int]
) -> dict[str, str]:
    """What was promised, and what was counted."""
    rules = Counter(each.rule for session in sessions for each in session.violations)
    kinds = Counter(each.kind for each in struck)
    broken = {name: sum(rules[rule] for rule in found) for name, found in _RULES.items()}
    runs = sum(len(session.accepted) for session in sessions)
    connections = sum(reader.connections for session in sessions for reader in session.readers)
    events = sum(len(session.frames) for session in sessions)
    superseded = sum(session.superseded for session in sessions)
    history = [each for each in struck if each.kind.startswith("getMore")]
    return {
        "Durable": f"{figures['acknowledged']} events acknowledged in {figures['appends']} appends, "
        f"{figures['lost']} lost; {len(struck)} faults, {events} events; {broken['Durable']} violations",
        "Ordered": f"{connections} connections of "
        f"{sum(len(session.readers) for session in sessions)} readers: {rules['hole']} holes, "
        f"{figures['holes_repaired']} repaired unseen, {rules['once']} doubled, "
        f"{rules['order'] + rules['time']} reordered, {rules['digest']} digests that differ; "
        f"{broken['Ordered']} violations",
        "No phantom": f"{figures['phantoms']} events that no majority had, {figures['phantom_reads']} reads "
        f"meanwhile, {figures['phantoms_seen']} showed one, {figures['phantoms_left']} were not rolled back; "
        f"{broken['No phantom']} violations",
        "One finish": f"{runs} runs, {rules['finish']} not ended once and last; "
        f"{broken['One finish']} violations",
        "Fencing": f"{superseded} attempts superseded, {kinds['enqueue twice']} runs enqueued twice, "
        f"{rules['fence']} events of an older attempt; {broken['Fencing']} violations",
        "History lost": f"{len(history)} times, longest silence "
        f"{max((each.silence for each in history), default=0.0):.1f} s; {rules['hole']} holes",
        "Other promises": f"{rules.total() - sum(broken.values())} violations",
    }


def recoveries(struck: Sequence[Struck], sessions: Sequence[Session]) -> dict[str, dict[str, Any]]:
    """By kind of fault: how often, the longest silence, that of the middle, and the promised one."""
    attribute(struck, [found for session in sessions for found in session.silences()])
    by_kind: dict[str, list[float]] = {}
    for each in struck:
        if each.running:
            by_kind.setdefault(each.kind, []).append(each.silence)
    return {
        kind: {
            "times": len(found),
            "longest": max(found),
            "middle": sorted(found)[len(found) // 2],
            "limit": (limit := limit_of(kind)),
            "over": sum(limit is not None and seconds > limit for seconds in found),
        }
        for kind, found in sorted(by_kind.items(), key=lambda item: -max(item[1]))
    }


def told(
    sessions: Sequence[Session], struck: Sequence[Struck], figures: Counter[str], *, seconds: float
) -> dict[str, Any]:
    """The report, but for what the caller knows better."""
    found = recoveries(struck, sessions)
    events = sum(len(session.frames) for session in sessions)
    readers = [reader for session in sessions for reader in session.readers]
    answers: Counter[str] = Counter()
    for session in sessions:
        answers.update({str(status): count for status, count in session.answers.items()})
    return {
        "seconds": round(seconds),
        "sessions": len(sessions),
        "runs": sum(len(session.accepted) for session in sessions),
        "faults": len(struck),
        "events": events,
        "events_per_second": round(events / seconds, 1),
        "readers": len(readers),
        "connections": sum(reader.connections for reader in readers),
        "lagged": sum(reader.lagged for reader in readers),
        "post_answers": dict(answers),
        "figures": dict(figures),
        "guarantees": guarantees(sessions, struck, figures),
        "recoveries": found,
        "timeline": [msgspec.to_builtins(each) for each in struck],
    }


def as_text(report: dict[str, Any]) -> str:
    """For people."""
    apart = ("guarantees", "recoveries", "timeline", "notes", "violations")
    lines = [f"{name}: {value}" for name, value in report.items() if name not in apart]
    lines += ["guarantees:", *(f"  {name:15}{figure}" for name, figure in report["guarantees"].items())]
    lines += ["longest silence of a running run, by fault:", "    longest  middle  promised  over/times"]
    for kind, found in report["recoveries"].items():
        limit = "-" if found["limit"] is None else f"{found['limit']:.1f}"
        times = f"{found['over']}/{found['times']}"
        lines.append(f"  {found['longest']:7.1f} s {found['middle']:5.1f} s {limit:>7} {times:>9}    {kind}")
    lines += ["timeline:"]
    for each in msgspec.convert(report["timeline"], list[Struck]):
        silence = f"{each.silence:5.1f} s" if each.silence else " " * 7
        lines.append(f"  {each.begin:7.1f} – {each.end:7.1f}  {silence}  {each.kind}: {each.said}")
    lines += [f"note: {note}" for note in report["notes"]]
    lines += [f"{len(report['violations'])} violations"]
    for found in msgspec.convert(report["violations"], list[Violation]):
        where = f"{found.session_id} seq {found.seq} at {found.at}"
        lines.append(f"  [{found.rule}] {where}: {found.detail[:700]}")
    return "\n".join(lines)
