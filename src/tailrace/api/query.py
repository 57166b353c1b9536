"""Query parameters, read strictly: a number is ASCII decimal digits, a name is given once."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

from litestar.connection import ASGIConnection
from litestar.exceptions import ValidationException
from litestar.handlers import BaseRouteHandler

__all__ = ["DECIMAL_PATTERN", "MAX_LIMIT", "decimal", "each_once", "page_limit", "whole"]

DECIMAL_PATTERN = r"^[0-9]{1,12}(\.[0-9]{1,9})?$"  # for OpenAPI; Unix seconds up to the year 33,658
MAX_LIMIT = 1_000  # items of one page
DEFAULT_LIMIT = 100

_SINGLE_HEADERS = ("Last-Event-ID", "Idempotency-Key")
_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,9})?", re.ASCII)
_WHOLE = re.compile(r"0|[1-9][0-9]{0,18}", re.ASCII)


def decimal(text: str, *, name: str = "since_timestamp") -> float:
    """Unix seconds from `text`: up to twelve digits, and up to nine more behind a point.

    Raises `ValidationException` (400) that names the parameter for a sign, an exponent, white space, another
    script's digits and everything else that `float` would take.
    """
    if _DECIMAL.fullmatch(text) is None:
        raise _refused(name, "must be Unix seconds in decimal digits, such as 1763800000.25")
    return float(text)


def whole(text: str, low: int, high: int, *, name: str = "limit") -> int:
    """The whole number in `text`, from `low` to `high` inclusive.

    Raises `ValidationException` (400) that names the parameter.
    """
    if _WHOLE.fullmatch(text) is None or not low <= int(text) <= high:
        raise _refused(name, f"must be a whole number from {low} to {high}")
    return int(text)


def page_limit(text: str | None) -> int:
    """How many items a page holds, of the parameter `limit`.

    Raises `ValidationException` (400) outside 1 to `MAX_LIMIT`.
    """
    return DEFAULT_LIMIT if text is None else whole(text, 1, MAX_LIMIT)


async def each_once(connection: ASGIConnection[Any, Any, Any, Any], _: BaseRouteHandler) -> None:
    """Guard: refuse a query that names a parameter twice: one reader would take the first, one the last. So
    for a header that says two things.

    Raises `ValidationException` (400) that names the parameter or header.
    """
    counted = Counter(name for name, _ in connection.query_params.multi_items())
    for name, times in counted.items():
        if times > 1:
            raise _refused(name, "must be given once")
    for name in _SINGLE_HEADERS:
        if len(set(connection.headers.getall(name, []))) > 1:
            raise _refused(name, "must be given once", source="header")


def _refused(name: str, why: str, *, source: str = "query") -> ValidationException:
    return ValidationException(extra=[{"key": name[:80], "message": why, "source": source}])
