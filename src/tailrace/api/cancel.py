"""Cancelling: the one route that ends a run before its time."""

from __future__ import annotations

from typing import Any, Literal

import msgspec
from litestar import Request, Response, post
from litestar.datastructures import State
from litestar.di import NamedDependency, Provide
from litestar.exceptions import ClientException
from litestar.openapi.datastructures import ResponseSpec
from litestar.types import ControllerRouterHandler

from tailrace.api.problems import documented
from tailrace.api.services import Services
from tailrace.api.session import owned_session
from tailrace.sessions import Session
from tailrace.tokens import Identity

__all__ = ["CancelAnswer", "handlers"]


class CancelAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """What a cancel found, and so does."""

    session_id: str
    run_id: str | None  # the run that is to end; null when nothing runs
    state: Literal["cancelling", "idle"]


class _Nothing(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The body, where there is one: a misunderstood wish must not end a run."""


_IDLE = ResponseSpec(CancelAnswer, description="Nothing was to be cancelled.", generate_examples=False)


@post(
    "/api/apps/{session_id:str}/agent/cancel",
    status_code=202,
    responses={200: _IDLE, **documented(404, 415)},
    dependencies={"session": Provide(owned_session)},
    response_headers={"Cache-Control": "no-store"},
    summary="End the active run",
)
async def cancel(
    request: Request[Identity, Any, State],
    services: NamedDependency[Services],
    session: NamedDependency[Session],
) -> Response[CancelAnswer]:
    """Asks for the end of the session's active run. Its `finish`, with the status `cancelled`, is on the
    streams within a moment; what the agent has said until then stays. Harmless when repeated or too late.
    """
    if body := await request.body():
        try:
            msgspec.json.decode(body, type=_Nothing)
        except msgspec.DecodeError as error:
            raise ClientException(f"The request cannot be read: {error}") from error
    run = await services.recovery.cancel(session.session_id)
    if run is None:
        idle = CancelAnswer(session_id=session.session_id, run_id=None, state="idle")
        return Response(idle, status_code=200)
    return Response(CancelAnswer(session_id=run.session_id, run_id=run.run_id, state="cancelling"))


handlers: list[ControllerRouterHandler] = [cancel]
