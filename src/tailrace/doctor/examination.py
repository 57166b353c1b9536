"""All checks, one after another: what one of them does must not slow what another measures."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import closing

from pymongo.errors import PyMongoError
from redis.exceptions import RedisError

from tailrace.doctor import api, archive, database, queue
from tailrace.doctor.finding import Finding, bad
from tailrace.jobs import connect_redis
from tailrace.mongo import connect
from tailrace.settings import Settings

__all__ = ["examine"]

CHECK_SECONDS = 20.0  # of one check; a healthy one takes a second at most

Check = Callable[[], Awaitable[Sequence[Finding]]]


async def examine(settings: Settings, *, url: str | None, token: str | None) -> AsyncIterator[Finding]:
    """Each finding as it is made: MongoDB, Redis, and with `url` the API behind whatever stands before it.

    Writes nothing that stays: what it inserts it deletes. `token` is for `url`; None mints one.
    """
    async with connect(settings) as mongo:
        stored = [*database.checks(settings, mongo), *archive.checks(settings, mongo)]
        looked = [each async for each in _all("MongoDB", stored, _MONGO_ADVICE)]
        for finding in looked:
            yield finding
        with closing(connect_redis(settings)) as redis:
            async for finding in _all("Redis", queue.checks(settings, redis), _REDIS_ADVICE):
                yield finding
        if url is not None and not any(finding.level == "problem" for finding in looked):
            async for finding in _all("API", api.checks(settings, mongo, url, token), _API_ADVICE):
                yield finding


_MONGO_ADVICE = "See that MONGODB_URL names the members of the replica set, and that they can be reached."
_REDIS_ADVICE = "See that REDIS_URL is right and that its host can be reached."
_API_ADVICE = "See that --url is the address that browsers use, and that it can be reached from here."


async def _all(part: str, checks: Sequence[Check], advice: str) -> AsyncIterator[Finding]:
    """The findings of `checks`. One that gets no answer ends them, and so does a problem of the first one:
    the rest stand on it.
    """
    for nth, check in enumerate(checks):
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                findings = await check()
        except TimeoutError:
            yield bad(part, f"no answer within {CHECK_SECONDS:.0f} s", advice)
            return
        except (PyMongoError, RedisError, OSError) as error:
            yield bad(part, str(error).partition(", Timeout:")[0][:300], advice)
            return
        for finding in findings:
            yield finding
        if nth == 0 and any(finding.level == "problem" for finding in findings):
            return
