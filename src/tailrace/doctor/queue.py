"""What runs need of Redis: that it keeps its jobs over a restart, drops none, and has workers behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any

from redis import Redis
from redis.exceptions import ResponseError
from rq import Queue, Worker
from rq.serializers import JSONSerializer

from tailrace.doctor.finding import Finding, bad, fair, good
from tailrace.settings import Settings

__all__ = ["checks"]


def checks(settings: Settings, redis: Redis) -> list[Callable[[], Awaitable[Sequence[Finding]]]]:
    """The checks, in the order in which they make sense."""
    return [
        partial(asyncio.to_thread, check, settings, redis)
        for check in (_answers, _persistence, _eviction, _workers)
    ]


def _answers(_: Settings, redis: Redis) -> list[Finding]:
    info: dict[str, Any] = redis.info("server")
    name = "Valkey" if "valkey_version" in info else "Redis"
    return [good("redis", f"{name} {info.get('valkey_version') or info['redis_version']} answers")]


def _persistence(_: Settings, redis: Redis) -> list[Finding]:
    info: dict[str, Any] = redis.info("persistence")
    if info.get("aof_enabled"):
        if info.get("aof_last_write_status") != "ok":
            advice = "Look at its log and its disk: jobs are not kept."
            return [bad("redis persistence", "the last write of the AOF failed", advice)]
        return [good("redis persistence", "AOF is on")]
    advice = (
        "Start it with --appendonly yes. Lost jobs are enqueued again from MongoDB, 10 s later; "
        "cancel messages and limits are not."
    )
    return [fair("redis persistence", "AOF is off: a restart forgets the newest jobs", advice)]


def _eviction(_: Settings, redis: Redis) -> list[Finding]:
    try:
        found: dict[str, str] = redis.config_get("maxmemory*")  # type: ignore[assignment]
    except ResponseError:
        return []  # a managed Redis may forbid it
    limit, policy = int(found.get("maxmemory", 0)), found.get("maxmemory-policy", "noeviction")
    if limit and policy != "noeviction":
        saw = f"at {limit / 2**20:,.0f} MiB it evicts by {policy}"
        return [bad("redis eviction", saw, "Set maxmemory-policy to noeviction: it may evict queued jobs.")]
    return [good("redis eviction", "none")]


def _workers(settings: Settings, redis: Redis) -> list[Finding]:
    queue = Queue(settings.queue, connection=redis, serializer=JSONSerializer)
    workers, waiting = Worker.count(queue=queue), queue.count
    saw = f"queue {settings.queue!r} has {workers} workers and {waiting} waiting jobs"
    if not workers:
        return [bad("workers", saw, f"Start some with TAILRACE_QUEUE={settings.queue}: tailrace worker -n 4")]
    if waiting > 2 * workers:
        return [fair("workers", saw, "Start more workers: prompts wait longer than a run takes.")]
    return [good("workers", saw)]
