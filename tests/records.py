"""Records that tests begin with."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from tailrace.runs import Run, new_run_id

__all__ = ["a_run"]


def a_run(session_id: str = "s1", **changes: Any) -> Run:
    """A queued run of alice's, not stored; other fields by keyword."""
    run = Run(
        run_id=new_run_id(),
        session_id=session_id,
        user="alice",
        agent="default",
        state="queued",
        created_at=time.time(),
        active=True,
        attempt=1,
        prompt="Hello",
    )
    return msgspec.structs.replace(run, **changes)
