"""What the archive needs: a pass that goes through often enough, and nothing that expires before it."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial

from tailrace.archive.passes import BEHIND_SECONDS, Passes
from tailrace.doctor.finding import Finding, fair, good
from tailrace.mongo import Database, settled
from tailrace.settings import Settings

__all__ = ["checks"]

LOOKED_AT = 200_000  # events that expire soon; to look at more would take longer than it is worth

_CRON = "Run `tailrace archive` every hour, and look at what it prints: it says what it had to leave."


def checks(settings: Settings, database: Database) -> list[Callable[[], Awaitable[Sequence[Finding]]]]:
    """The checks of an archive, if there is one."""
    return [partial(each, database) for each in (_passes, _expiring)] if settings.archive_url else []


async def _passes(database: Database) -> list[Finding]:
    age = await Passes(database).age()
    if math.isinf(age):
        return [fair("archive", "`tailrace archive` never went through: MongoDB keeps everything", _CRON)]
    saw = f"`tailrace archive` last went through {age / 3600:.1f} h ago"
    if age > BEHIND_SECONDS:
        return [fair("archive", f"{saw}: MongoDB keeps what came since", _CRON)]
    return [good("archive", saw)]


async def _expiring(database: Database) -> list[Finding]:
    """Events whose runs began before the archive was on expire by their time, archived or not."""
    soon = datetime.now(UTC) + timedelta(days=1)
    archived = {"$ifNull": [{"$first": "$session.archived_seq"}, 0]}
    session = {"from": "sessions", "localField": "_id", "foreignField": "_id", "as": "session"}
    cursor = await settled(
        database["events"].aggregate(
            [
                {"$match": {"expires_at": {"$lt": soon}}},
                {"$sort": {"expires_at": 1}},
                {"$limit": LOOKED_AT},
                {"$group": {"_id": "$session_id", "last": {"$max": "$seq"}}},
                {"$lookup": session},
                {"$match": {"$expr": {"$gt": ["$last", archived]}, "session.owner": {"$exists": True}}},
                {"$count": "sessions"},
            ]
        )
    )
    found = await cursor.to_list(None)
    if not found:
        return [good("archive expiry", "nothing expires within a day that is not archived")]
    saw = f"{found[0]['sessions']:,} sessions have events that expire within a day and are not archived"
    advice = (
        "Run `tailrace archive --older-than 0s` now. A session with an unfinished run is left out: keep its "
        "events with `tailrace retention SESSION --forever` until it has ended."
    )
    return [fair("archive expiry", saw, advice)]
