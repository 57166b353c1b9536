"""The session in a route's path: well-formed, there, and the caller's."""

from __future__ import annotations

from typing import Annotated, Any

from litestar import Request
from litestar.connection import ASGIConnection
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler
from litestar.params import PathParameter

from tailrace.api.services import Services
from tailrace.errors import NotYours
from tailrace.events import SESSION_ID
from tailrace.sessions import Session
from tailrace.tokens import Identity

__all__ = ["SessionId", "owned_session", "well_formed"]

# The path parameter; the guard `well_formed` has checked it before any handler sees it.
SessionId = Annotated[str, PathParameter(schema_extra={"pattern": f"^{SESSION_ID.pattern}$"})]


async def well_formed(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard: refuse a `session_id` in the path that cannot be one.

    Raises `ValidationException` (400).
    """
    session_id = connection.path_params.get("session_id")
    if session_id is not None and SESSION_ID.fullmatch(session_id) is None:
        why = "must be 1 to 64 letters, digits, _ or -, in ASCII"
        raise ValidationException(extra=[{"key": "session_id", "message": why, "source": "path"}])


async def owned_session(
    request: Request[Identity, None, State], services: NamedDependency[Services], session_id: SessionId
) -> Session:
    """The dependency `session`: the session that the path names.

    Raises `NotYours` (404) both when it is somebody else's and when nobody has it.
    """
    session = await services.sessions.owned_by(session_id, request.user.user)
    if session is None:
        raise NotYours
    return session
