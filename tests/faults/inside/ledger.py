"""The ledger: what each process wrote to the log, noted before and after, for the harness to compare.

One JSON line a write, appended to the file `TORTURE_LEDGER` at once: what was acknowledged in a process that
was killed a moment later stands there as well.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Sequence
from typing import Any, cast

from tailrace.events import Draft, Event
from tailrace.writer import Writer

_FILE = os.open(os.environ["TORTURE_LEDGER"], os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
_NUMBERS = itertools.count()
_append, _stored = Writer.append, Writer._stored


def _note(writer: Writer, **what: Any) -> None:
    of = {"session": writer._session_id, "run": writer._run_id, "attempt": writer._attempt}
    os.write(_FILE, json.dumps({**what, **of}).encode() + b"\n")


def _told(events: Sequence[Event]) -> list[tuple[int, str]]:
    return [(event.seq, hashlib.sha256(event.to_json()).hexdigest()[:16]) for event in events]


async def _noted_append(self: Writer, drafts: Sequence[Draft]) -> list[Event]:
    number = f"{os.getpid()}-{next(_NUMBERS)}"
    _note(self, will=number, drafts=len(drafts))
    events = await _append(self, drafts)
    _note(self, did=number, events=_told(events))
    return events


async def _noted_stored(self: Writer, events: list[Event]) -> int:
    """Under all of `append`, `begin` and `take_over`."""
    count = await _stored(self, events)
    _note(self, stored=_told(events[:count]))
    return count


cast(Any, Writer).append = _noted_append
cast(Any, Writer)._stored = _noted_stored
