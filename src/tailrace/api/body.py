"""The request's body: JSON, and said to be JSON."""

from __future__ import annotations

from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import HTTPException
from litestar.handlers import BaseRouteHandler

__all__ = ["json_only"]


def json_only(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard: refuse a body of another content type.

    A form that a foreign page submits carries no JSON type, so this is a wall against forged requests too.

    Raises `HTTPException` (415).
    """
    headers = connection.headers
    if headers.get("content-length", "0") == "0" and "transfer-encoding" not in headers:
        return
    given = headers.getall("content-type", [])
    media_type, *parameters = (given[0] if len(given) == 1 else "").split(";", 1)
    charset = "".join(parameters).strip().lower().removeprefix("charset=").strip('"')
    if media_type.strip().lower() != "application/json" or charset not in ("", "utf-8", "utf8"):
        raise HTTPException(
            detail="The body must be JSON in UTF-8, with Content-Type: application/json.",
            status_code=415,
            headers={"Accept": "application/json"},
        )
