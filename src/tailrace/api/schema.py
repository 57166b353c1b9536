"""OpenAPI at `/schema`: JSON and YAML only. Litestar's pages for it load scripts from other hosts."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any, cast

from litestar import Request, Response, Router
from litestar.exceptions import NotFoundException
from litestar.openapi.config import OpenAPIConfig
from litestar.openapi.datastructures import ResponseSpec
from litestar.openapi.plugins import JsonRenderPlugin, YamlRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from tailrace.api.problems import documented
from tailrace.api.wire import ControlFrame, EventFrame

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
        render_plugins=[_Json(), _Yaml()],
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=_problem_when_missing
        ),
    )


def stream_responses(*statuses: int) -> dict[int, ResponseSpec]:
    """For a stream handler's `responses=`: the event stream at 200, and problems at `statuses`."""
    stream = ResponseSpec(
        cast("Any", EventFrame | ControlFrame),  # whether a union is a type depends on what else is installed
        description="Server-sent events: the schema is that of one frame.",
        media_type="text/event-stream",
        generate_examples=False,
    )
    return {200: stream, **documented(*statuses)}


class _Json(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, _told(openapi_schema))


class _Yaml(YamlRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        return super().render(request, _told(openapi_schema))


def _told(document: dict[str, Any]) -> dict[str, Any]:
    """The document with what a Struct's types cannot tell."""
    schemas = document["components"]["schemas"]
    events = schemas["EventPage"]["properties"]["events"]["items"]
    embedded = {"contentMediaType": "application/json", "contentSchema": events}
    schemas["EventFrame"]["properties"]["data"] |= embedded
    schemas["ControlFrame"]["properties"]["data"] |= {"contentMediaType": "application/json"}
    asked = schemas["GenerateRequest"]
    asked |= {"additionalProperties": False, "oneOf": [_either("prompt"), _either("content_parts")]}
    asked["properties"]["prompt"]["pattern"] = r"\S"
    part = {"type": "object", "required": ["type"], "properties": {"type": {"type": "string"}}}
    asked["properties"]["content_parts"]["items"] = part
    return document


def _either(name: str) -> dict[str, Any]:
    return {"required": [name], "properties": {name: {"not": {"type": "null"}}}}


async def _problem_when_missing(response: Response[Any]) -> Response[Any]:
    # Litestar answers an unknown path under /schema with a page of HTML.
    if response.status_code == 404:
        raise NotFoundException
    return response
