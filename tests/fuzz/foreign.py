"""The list: somebody else's session, on every route of the OpenAPI document, is the same as none."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tests.fuzz.case import Case, Target, send

__all__ = ["check_foreign", "foreign"]

METHODS = ("get", "put", "post", "delete", "patch", "head")
MISSING = "nobody-has-this-one"


def foreign(target: Target, document: dict[str, Any], run_id: str) -> Iterator[Case]:
    """A request to each operation that names a session, with a body where one is wanted."""
    for path, item in document["paths"].items():
        if "{session_id}" in path:
            for method in METHODS:
                if method in item:
                    yield _asked(target, path, method, item[method], run_id)


def _asked(target: Target, path: str, method: str, operation: dict[str, Any], run_id: str) -> Case:
    asked = path.replace("{session_id}", target.foreign).replace("{run_id}", run_id)
    body = b'{"prompt":"Is it mine?"}' if operation.get("requestBody", {}).get("required") else b""
    headers = [("Content-Type", "application/json")] if body else []
    return Case.of(
        target,
        "somebody else's session",
        f"{method.upper()} {path}",
        asked,
        404,
        method=method.upper(),
        headers=headers,
        body=body,
    )


async def check_foreign(target: Target, case: Case) -> str | None:
    """Whether the answer differs, by more than the path, from that for a session that nobody has."""
    theirs = await send(case, target.port)
    if case.name.endswith("/generate"):
        return None  # on a session that nobody has it makes one
    parts = tuple(part.replace(target.foreign.encode(), MISSING.encode()) for part in case.parts)
    none = await send(Case(topic=case.topic, name=case.name, parts=parts, right=case.right), target.port)
    same = none.body.replace(MISSING.encode(), target.foreign.encode())
    own = {"content-length", "date"}
    headers = [{k: v for k, v in each.headers.items() if k not in own} for each in (theirs, none)]
    if (theirs.status, theirs.body, headers[0]) != (none.status, same, headers[1]):
        return f"{theirs.status} {theirs.body[:200]!r} where nobody's is {none.status} {none.body[:200]!r}"
    return None
