"""A lease: a running run's sign of life, and a queued run's time to be taken. All by the database's clock.

A worker renews its run's lease as long as it lives. Whoever finds a lease that has run out may take the run:
one atomic update decides who does, and raises the attempt, which fences the one before.
"""

from __future__ import annotations

from typing import Any

from pymongo import ReturnDocument

from tailrace.documents import from_document, readable
from tailrace.mongo import Database
from tailrace.runs import LEASE_SECONDS, Run, lease_for

__all__ = ["BEAT_SECONDS", "CANCEL_GRACE_SECONDS", "Leases"]

BEAT_SECONDS = 2.0  # between renewals; three may fail before the lease has run out
QUEUED_SECONDS = 10.0  # then somebody looks whether the queued run's job is still there
CANCEL_GRACE_SECONDS = 5.0  # for a run to end by itself after it was told; then its process is killed

_RUN_OUT = {"$expr": {"$lt": ["$lease_expires_at", "$$NOW"]}}  # a missing lease counts as run out


class Leases:
    """The leases in the `runs` collection."""

    def __init__(self, database: Database) -> None:
        self._runs = database["runs"]

    async def renew(self, run: Run) -> Run | None:
        """Hold the run for another lease's time; None when this attempt has lost it or it has ended."""
        seconds = LEASE_SECONDS if run.state == "running" else QUEUED_SECONDS
        found = await self._runs.find_one_and_update(
            _held(run), [{"$set": lease_for(seconds)}], return_document=ReturnDocument.AFTER
        )
        return _run(found)

    async def run_out(self, *, limit: int) -> list[Run]:
        """Up to `limit` active runs whose lease has run out."""
        cursor = self._runs.find({"active": True, **_RUN_OUT}).limit(limit)
        return readable(Run, await cursor.to_list(None))

    async def take(self, run: Run, *, dead: bool, handed_over: bool = False) -> Run | None:
        """Begin the next attempt of `run`: it is queued again, and no attempt before may write any more.

        None when somebody else was first, or the lease was renewed. `dead` says that the process that held
        the run is known to be gone: the lease then does not count. `handed_over` says that it gave the run up
        because it had to leave.
        """
        query = {**_held(run), "state": run.state, **({} if dead else _RUN_OUT)}
        update = {
            "attempt": {"$add": ["$attempt", 1]},
            "handovers": {"$add": [{"$ifNull": ["$handovers", 0]}, int(handed_over)]},
            "state": "queued",
            "worker": None,
            **lease_for(QUEUED_SECONDS),
        }
        found = await self._runs.find_one_and_update(
            query, [{"$set": update}], return_document=ReturnDocument.AFTER
        )
        return _run(found)

    async def deaf(self, *, limit: int) -> list[Run]:
        """Up to `limit` running runs that were told to end longer than `CANCEL_GRACE_SECONDS` ago."""
        told = {"$subtract": ["$$NOW", CANCEL_GRACE_SECONDS * 1000]}
        query = {
            "active": True,
            "state": "running",
            "cancel_requested": True,
            "$expr": {"$lt": ["$cancel_requested_at", told]},
        }
        return readable(Run, await self._runs.find(query).limit(limit).to_list(None))


def _held(run: Run) -> dict[str, Any]:
    # With the session, by which a sharded cluster knows where the run is.
    return {"_id": run.run_id, "session_id": run.session_id, "attempt": run.attempt, "active": True}


def _run(found: dict[str, Any] | None) -> Run | None:
    return None if found is None else from_document(Run, found)
