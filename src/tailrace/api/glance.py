"""A glance: all that a reader who joins must know of a session, by one query over its collections."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from pymongo import ASCENDING, DESCENDING, ReadPreference
from pymongo.read_concern import ReadConcern

from tailrace.api.services import Services
from tailrace.errors import NotYours
from tailrace.eventlog import Bounds, EventLog
from tailrace.mongo import settled

__all__ = ["Glance", "glance"]


class Glance(msgspec.Struct, frozen=True, kw_only=True):
    """A session's log at a moment, and the run that was asked for, or else the active one."""

    bounds: Bounds  # with what is archived
    newest_at: float | None  # Unix seconds: the newest event's, unless it has expired
    running: str | None  # the run's id, if its `finish` is still to come
    finish_seq: int | None  # where it stands, if the run has ended


async def glance(services: Services, session_id: str, user: str, *, run_id: str | None) -> Glance:
    """The session as it is, seeing every write until now; and the run `run_id`, or the active one.

    Raises `NotYours` when it is not `user`'s, or has no such run.
    """
    sessions = services.database.get_collection(
        "sessions", read_preference=ReadPreference.PRIMARY, read_concern=ReadConcern("majority")
    )
    stages = _stages(session_id, user, run_id, archive=bool(services.settings.archive_url))
    async with services.log.fresh() as causal:
        found = await (await settled(sessions.aggregate(stages, session=causal))).to_list(None)
    if not found or (run_id is not None and not found[0]["run"]):
        raise NotYours
    seen = _seen(found[0])
    if await _has_finished(services.log, session_id, found[0], seen.running):
        return msgspec.structs.replace(seen, running=None)
    return seen


async def _has_finished(
    event_log: EventLog, session_id: str, found: Mapping[str, Any], running: str | None
) -> bool:
    """Whether the run that is not marked as ended has its `finish`, and another began to wait behind that.

    Asked for apart: it is rare that what began to wait is the newest event.
    """
    (newest,) = found["newest"] or [{}]
    if running is None or newest.get("event_type") != "run_queued" or newest["run_id"] == running:
        return False
    after = (found["run"][0].get("first_seq") or 1) - 1
    return await event_log.finish_of(session_id, running, after=after) is not None


def _stages(session_id: str, user: str, run_id: str | None, *, archive: bool) -> list[dict[str, Any]]:
    """The session with its run, both ends of its log, and its first segment, each in a list of at most one.

    In this order: with a run that has ended its `finish` is seen, and what has expired is in the archive.
    Each part names the session, by which a sharded cluster knows where it is.
    """
    own = {"session_id": session_id}
    run = {**own, "active": True} if run_id is None else {**own, "_id": run_id}
    newest = {"_id": 0, "seq": 1, "timestamp": 1, "event_type": 1, "run_id": 1}
    archived = [_part("archived", "segments", own, {"first": 1}, sort={"last": ASCENDING})] if archive else []
    return [
        {"$match": {"_id": session_id, "owner": user}},
        {"$project": {"last_seq": 1}},
        _part("run", "runs", run, {"finished_at": 1, "first_seq": 1, "last_seq": 1}),
        _part("newest", "events", own, newest, sort={"seq": DESCENDING}),
        _part("oldest", "events", own, {"_id": 0, "seq": 1}, sort={"seq": ASCENDING}),
        *archived,
    ]


def _part(
    name: str, collection: str, query: dict[str, Any], fields: dict[str, int], *, sort: Any = None
) -> dict[str, Any]:
    order = [{"$sort": sort}] if sort else []
    pipeline = [{"$match": query}, *order, {"$limit": 1}, {"$project": fields}]
    return {"$lookup": {"from": collection, "pipeline": pipeline, "as": name}}


def _seen(found: Mapping[str, Any]) -> Glance:
    run, newest, oldest, archived = (
        (found.get(name) or [{}])[0] for name in ("run", "newest", "oldest", "archived")
    )
    last = newest.get("seq", found.get("last_seq", 0))  # when the events have expired, the session knows
    first = oldest.get("seq", last + 1)
    # The `finish` is written a moment before the run is marked as ended.
    finished = newest.get("event_type") == "finish" and newest["run_id"] == run.get("_id")
    return Glance(
        bounds=Bounds(min(first, archived.get("first", first)), last),
        newest_at=newest.get("timestamp"),
        running=None if finished or run.get("finished_at") is not None else run.get("_id"),
        finish_seq=run.get("last_seq"),
    )
