"""A plant: nobody looks for leases that have run out."""

from __future__ import annotations

from typing import Any, cast

from tailrace.leases import Leases
from tailrace.runs import Run


async def _none(self: Any, *, limit: int) -> list[Run]:
    return []


cast(Any, Leases).run_out = _none
