"""OpenAPI at `/schema`: JSON and YAML only. Litestar's pages for it load scripts from other hosts."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from litestar import Response, Router
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from tailrace.api.problems import documented
from tailrace.api.wire import WireEvent

__all__ = ["openapi", "stream_responses"]

_BEARER = "bearer"


def openapi() -> OpenAPIConfig:
    """The configuration of Litestar's generator."""
    scheme = SecurityScheme(type="http", scheme="bearer", bearer_format="JWT")
    return OpenAPIConfig(
        title="Tailrace",
        version=version("tailrace"),
        description="Durable, resumable agent streams.",
        components=Components(security_schemes={_BEARER: scheme}),
        security=[{_BEARER: []}],
        render_plugins=[JsonRenderPlugin(), YamlRenderPlugin()],
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=_problem_when_missing
        ),
    )


def stream_responses(*statuses: int) -> dict[int, ResponseSpec]:
    """For a stream handler's `responses=`: the event stream at 200, and problems at `statuses`."""
    stream = ResponseSpec(
        WireEvent,
        description="Server-sent events; each `data:` is one event's JSON.",
        media_type="text/event-stream",
        generate_examples=False,
    )
    return {200: stream, **documented(*statuses)}


async def _problem_when_missing(response: Response[Any]) -> Response[Any]:
    # Litestar answers an unknown path under /schema with a page of HTML.
    if response.status_code == 404:
        raise NotFoundException
    return response
