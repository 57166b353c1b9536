"""Breaks the product on purpose, in the processes that the harness starts with `--plant`: it must go red."""

from __future__ import annotations

import os
from typing import Any, cast


async def _always(*_: Any) -> bool:
    return True


async def _renews_and_does_not_look(hold: Any) -> None:
    await hold._leases.renew(hold._run)


if os.environ.get("TORTURE_PLANT") == "no-fence":
    import tailrace.runs
    import tailrace_worker.hold

    cast(Any, tailrace.runs.Runs).owns = _always
    cast(Any, tailrace_worker.hold.Hold).look = _renews_and_does_not_look

if os.environ.get("TORTURE_PLANT") == "history-first":
    import tailrace.live.hub

    cast(Any, tailrace.live.hub.Hub).covers = lambda self, session_id: True
