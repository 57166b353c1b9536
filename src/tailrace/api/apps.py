"""The caller's sessions."""

from __future__ import annotations

import math
from typing import Any

import msgspec
from litestar import Request, Router, delete, get
from litestar.di import NamedDependency
from litestar.types import ControllerRouterHandler

from tailrace.api.history import Before, Limit
from tailrace.api.problems import documented
from tailrace.api.query import decimal, page_limit
from tailrace.api.services import Services
from tailrace.api.session import SessionId
from tailrace.errors import NotYours
from tailrace.sessions import Session
from tailrace.tokens import Identity

__all__ = ["App", "AppPage", "handlers"]


class App(msgspec.Struct, frozen=True, kw_only=True):
    """A session as its owner sees it."""

    session_id: str
    title: str
    created_at: float  # Unix seconds
    updated_at: float  # Unix seconds
    last_seq: int  # the log's end when its last run finished


class AppPage(msgspec.Struct, frozen=True, kw_only=True):
    """Sessions, newest first."""

    apps: list[App]
    next: float | None  # to pass as `before`; null at the end


@get("/api/apps", responses=documented())
async def apps(
    request: Request[Identity, Any, Any],
    services: NamedDependency[Services],
    before: Before = None,
    limit: Limit = None,
) -> AppPage:
    """A page of the caller's sessions, the newest prompt first."""
    count = page_limit(limit)
    start = math.inf if before is None else decimal(before, name="before")
    found = await services.sessions.of(request.user.user, before=start, limit=count)
    return AppPage(
        apps=[_app(session) for session in found],
        next=found[-1].updated_at if len(found) == count else None,
    )


@delete("/api/apps/{session_id:str}", responses=documented(404), summary="Erase a session")
async def erase(
    request: Request[Identity, Any, Any], services: NamedDependency[Services], session_id: SessionId
) -> None:
    """Erases the caller's session with all its data. From the answer on it does not exist: every route says
    404, its readers are cut, its runs end; what was stored of it is deleted within moments. Repeating it is
    therefore a 404.
    """
    if not await services.erasure.erase(session_id, request.user.user):
        raise NotYours


def _app(session: Session) -> App:
    return App(
        session_id=session.session_id,
        title=session.title,
        created_at=session.created_at,
        updated_at=session.updated_at,
        last_seq=session.last_seq,
    )


handlers: list[ControllerRouterHandler] = [
    Router("/", route_handlers=[apps, erase], response_headers={"Cache-Control": "no-store"}, tags=["apps"])
]
