"""What the processes noted in their ledgers, against what the readers saw."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tests.faults.session import Session

__all__ = ["check_ledgers", "holes_found"]


def check_ledgers(place: Path, sessions: Iterable[Session]) -> dict[str, int]:
    """Blame the sessions for what was acknowledged and is lost; `appends`, `acknowledged` and `lost`.

    Every reader that read to the end has seen the frames of its session, byte for byte: that is the
    readers' own check.
    """
    by_id = {session.session_id: session for session in sessions}
    figures = Counter({"appends": 0, "acknowledged": 0, "unanswered": 0, "lost": 0})
    acknowledged: dict[str, dict[int, str]] = {}
    for path in sorted(place.glob("*.ledger")):
        wanted: dict[str, int] = {}
        for line in path.read_bytes().splitlines():
            note = json.loads(line)
            if session := by_id.get(note["session"]):
                _read(session, note, wanted, acknowledged.setdefault(session.session_id, {}), figures)
        figures["unanswered"] += len(wanted)  # killed, fenced off or cancelled in the middle
    for session_id, events in acknowledged.items():
        figures["acknowledged"] += len(events)
        figures["lost"] += sum(_lost(by_id[session_id], seq, told) for seq, told in sorted(events.items()))
    return dict(figures)


def holes_found(place: Path) -> int:
    """How often an API noticed that the event which came was not the next; its readers must not."""
    return sum(path.read_bytes().count(b"action=hole ") for path in place.glob("api*.log"))


def _read(
    session: Session,
    note: dict[str, Any],
    wanted: dict[str, int],
    acknowledged: dict[int, str],
    figures: Counter[str],
) -> None:
    if "will" in note:
        wanted[note["will"]] = note["drafts"]
        return
    if "did" in note:
        figures["appends"] += 1
        drafts = wanted.pop(note["did"])
        if len(note["events"]) != drafts:
            session.blame("ledger", f"{drafts} drafts made {len(note['events'])} events: {note}")
    for seq, told in note.get("events", note.get("stored", ())):
        if acknowledged.setdefault(seq, told) != told:
            session.blame("lost", f"two events were acknowledged at {seq}: {note}", seq)


def _lost(session: Session, seq: int, told: str) -> bool:
    frame = session.frames.get(seq)
    if frame is not None and hashlib.sha256(frame).hexdigest()[:16] == told:
        return False
    session.blame("lost", f"acknowledged as {told}, and the log has {frame!r}", seq)
    return True
