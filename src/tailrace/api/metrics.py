"""`/metrics`, for Prometheus."""

from __future__ import annotations

from typing import Any

from litestar import Request, Response, get
from litestar.di import NamedDependency
from litestar.types import ControllerRouterHandler

from tailrace.api.auth import OPEN
from tailrace.api.services import Services

__all__ = ["handlers"]


@get("/metrics", opt=OPEN, include_in_schema=False)
async def shown(request: Request[Any, Any, Any], services: NamedDependency[Services]) -> Response[bytes]:
    """For Prometheus. It tells of numbers only: of no user, session or run."""
    body, content_type = await services.figures.shown(request.headers.get("accept", ""))
    return Response(body, media_type=content_type, headers={"Cache-Control": "no-store"})


handlers: list[ControllerRouterHandler] = [shown]
