"""A plant: no attempt ever notices that another one has its run."""

from __future__ import annotations

from typing import Any, cast

import tailrace.runs
import tailrace_worker.hold
import tailrace_worker.keeper


async def _always(*_: Any) -> bool:
    return True


def _renewed_and_not_looked_at(*_: Any) -> None:
    pass


cast(Any, tailrace.runs.Runs).owns = _always
cast(Any, tailrace_worker.hold.Hold).hear = _renewed_and_not_looked_at
cast(Any, tailrace_worker.keeper)._Keeper._tell = _renewed_and_not_looked_at
