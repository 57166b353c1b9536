"""Liveness and readiness, for whoever starts, stops and balances the API."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import Literal

import msgspec
from litestar import Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ControllerRouterHandler

from tailrace.api.auth import OPEN
from tailrace.api.services import Services
from tailrace.mongo import ping

__all__ = ["Health", "Readiness", "handlers"]

CHECK_SECONDS = 2.0  # of one check; they run side by side

_NO_STORE = {"Cache-Control": "no-store"}


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """The process answers."""

    status: Literal["ok"] = "ok"


class Readiness(msgspec.Struct, frozen=True, kw_only=True):
    """Whether requests can be served; each check says `ok`, or what is wrong."""

    ready: bool
    mongodb: str
    indexes: str
    change_stream: str
    redis: str


@get("/healthz", opt=OPEN, security=[{}], response_headers=_NO_STORE, tags=["health"])
async def healthz() -> Health:
    """Answers as long as the process lives; asks nobody else, so that an outage restarts nothing."""
    return Health()


@get(
    "/readyz",
    opt=OPEN,
    security=[{}],
    response_headers=_NO_STORE,
    tags=["health"],
    responses={503: ResponseSpec(Readiness, description="Not ready", generate_examples=False)},
)
async def readyz(services: NamedDependency[Services]) -> Response[Readiness]:
    """200 when MongoDB has a primary, indexes and change stream stand, and Redis answers; else 503."""
    mongodb, redis = await asyncio.gather(
        _checked(ping(services.database), "MongoDB has no primary that answers"),
        _checked(services.jobs.ping(), "Redis does not answer"),
    )
    checks = {
        "mongodb": mongodb,
        "indexes": services.indexes.status() or "ok",
        "change_stream": services.live.status() or "ok",
        "redis": redis,
    }
    ready = all(said == "ok" for said in checks.values())
    return Response(Readiness(ready=ready, **checks), status_code=200 if ready else 503)


async def _checked(check: Awaitable[None], otherwise: str) -> str:
    # The words are fixed: the route is open, and a driver's error tells hosts and ports.
    try:
        async with asyncio.timeout(CHECK_SECONDS):
            await check
    except TimeoutError:
        return f"{otherwise} within {CHECK_SECONDS:g} s"
    except Exception:  # every driver raises its own, and a lock of theirs a RuntimeError when the time ends
        return otherwise
    return "ok"


handlers: list[ControllerRouterHandler] = [healthz, readyz]
