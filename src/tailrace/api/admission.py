"""Admission: how a run that was asked for becomes durable, and who must wait for whom."""

from __future__ import annotations

import logging

import msgspec

from tailrace.api.services import Services
from tailrace.errors import EnqueueFailed, IdempotencyConflict, LimitReached, RunConflict
from tailrace.runs import Run
from tailrace.sessions import Session

__all__ = ["admit", "earlier"]

log = logging.getLogger(__name__)


async def admit(services: Services, run: Run, session: Session, *, on_conflict: str) -> Run:
    """Store `run`, tell the readers, then hand it to a worker, or let it wait for its session's active run.

    Returns it with its `first_seq`; or the run that the same request, sent twice at once, has just made. The
    document comes first, the job last: a run whose job was lost on the way is enqueued again.

    Raises `RunConflict` when the session has an active run and `on_conflict` is `reject`,
    `IdempotencyConflict` when the key was used for another body, and `LimitReached` when the user has as many
    unfinished runs as he may have.
    """
    # Before the run is stored, so that all its events stand behind it. An end of a moment ago will do.
    end = await services.log.end(run.session_id, remembered=session.last_seq)
    run = msgspec.structs.replace(run, behind_seq=end.seq)
    try:
        await services.limits.take_slot(run)
        admitted = await _stored(services, run, on_conflict)
    except (RunConflict, LimitReached) as error:
        if isinstance(error, RunConflict):
            await services.limits.give_back_slot(run)
        # The same request twice at once: the other one was first.
        if (before := await earlier(services, run)) is not None:
            return before
        raise
    admitted = await services.recovery.introduce(admitted, behind=end)
    if admitted.state == "waiting":
        # The active run may have ended before this one was there to be promoted.
        await services.recovery.promote(run.session_id)
    else:
        await _enqueue(services, admitted)
    return admitted


async def earlier(services: Services, run: Run) -> Run | None:
    """The run that the same user's request with the same key and body made before.

    Raises `IdempotencyConflict` when it was another body.
    """
    if run.idempotency_key is None:
        return None
    before = await services.runs.by_key(run.session_id, run.idempotency_key)
    if before is None or before.user != run.user:
        return None
    if before.request_hash != run.request_hash:
        raise IdempotencyConflict
    return before


async def _stored(services: Services, run: Run, on_conflict: str) -> Run:
    try:
        await services.runs.create(run)
    except RunConflict as conflict:
        if on_conflict == "reject":
            raise
        active = conflict.run_id
    else:
        return run
    waiting = msgspec.structs.replace(run, state="waiting", active=False)
    await services.runs.create(waiting)
    if on_conflict == "interrupt" and active is not None:
        await services.recovery.cancel(run.session_id, active)  # not whichever follows it
    return waiting


async def _enqueue(services: Services, run: Run) -> None:
    try:
        await services.jobs.enqueue(run)
    except EnqueueFailed as error:
        # The run is durable: whoever looks after it enqueues it when Redis is back.
        log.warning("A run waits for Redis", extra={"action": "enqueue", "error": str(error)})
