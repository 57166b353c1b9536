"""Errors as the client sees them: problem details (RFC 9457), always, and never an inside of the server."""

from __future__ import annotations

import logging
from functools import singledispatch
from http import HTTPStatus
from typing import Any, NamedTuple

import msgspec
from litestar import Request, Response
from litestar.exceptions import HTTPException, ValidationException
from litestar.openapi.datastructures import ResponseSpec
from pymongo.errors import PyMongoError

from tailrace.errors import (
    ArchiveUnavailable,
    CursorError,
    DocumentDamaged,
    IdempotencyConflict,
    LimitReached,
    MigrationNeeded,
    NotYours,
    RunConflict,
    Unauthorized,
)
from tailrace.metrics import LIMITS_REFUSED, PROBLEMS
from tailrace.mongo import is_passing

__all__ = ["MEDIA_TYPE", "FieldProblem", "Problem", "documented", "respond"]

MEDIA_TYPE = "application/problem+json"
RETRY_AFTER_SECONDS = 2  # about the time of an election
MAX_SHOWN = 200  # characters of a path or message that the client sent

_URN = "urn:tailrace:problem:"
log = logging.getLogger(__name__)


class FieldProblem(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is wrong with one field or parameter."""

    field: str
    message: str
    source: str | None = None  # body, query, path or header


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """Problem details, RFC 9457, section 3.1; the members below `instance` are ours."""

    title: str  # the same for every occurrence of the type
    status: int  # the HTTP status again
    detail: str  # of this occurrence, for a person
    type: str = "about:blank"
    instance: str | msgspec.UnsetType = msgspec.UNSET  # the request's path
    errors: list[FieldProblem] | msgspec.UnsetType = msgspec.UNSET  # 400: field by field
    run_id: str | msgspec.UnsetType = msgspec.UNSET  # 409: the run that is active
    reason: str | msgspec.UnsetType = msgspec.UNSET  # 400 and 410 of a cursor: why
    limit: str | msgspec.UnsetType = msgspec.UNSET  # 429: which limit of the user
    allowed: int | msgspec.UnsetType = msgspec.UNSET  # 429: how many it allows
    window: int | msgspec.UnsetType = msgspec.UNSET  # 429: within so many seconds; without it: at once
    retry_after: int | msgspec.UnsetType = msgspec.UNSET  # 429: seconds, as in the header


class _Answer(NamedTuple):
    problem: Problem
    headers: dict[str, str] = {}  # noqa: RUF012 - never changed, copied by `respond`


def documented(*statuses: int) -> dict[int, ResponseSpec]:
    """For a handler's `responses=`: these statuses, and those that every route may answer, in OpenAPI."""
    return {
        status: ResponseSpec(
            Problem, description=HTTPStatus(status).phrase, media_type=MEDIA_TYPE, generate_examples=False
        )
        for status in sorted({*statuses, 400, 401, 503})
    }


def respond(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """The answer to any exception; one that means nothing to the client is logged here, once: a 500."""
    problem, headers = _answer(error)
    PROBLEMS.add(str(problem.status))
    if isinstance(error, LimitReached):
        LIMITS_REFUSED.add(error.limit)
    if isinstance(error, DocumentDamaged):
        words = {"action": "damaged", "session_id": error.session_id, "error": str(error)}
        log.error("Stored data cannot be read", extra=words)
    elif problem.status == HTTPStatus.INTERNAL_SERVER_ERROR:
        log.error("A request failed", exc_info=error, extra={"action": "request_failed"})
    elif problem.status == HTTPStatus.SERVICE_UNAVAILABLE and not isinstance(error, ArchiveUnavailable):
        # An outage of the archive is told where it is met, once.
        name = type(error).__name__
        log.warning("A request found a service away", extra={"action": "unavailable", "error": name})
    shown = msgspec.structs.replace(problem, instance=request.scope["path"][:MAX_SHOWN])
    return Response(
        msgspec.json.encode(shown),
        media_type=MEDIA_TYPE,
        status_code=problem.status,
        headers={"Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", **headers},
    )


def _plain(status: int, detail: str, **more: Any) -> Problem:
    return Problem(title=HTTPStatus(status).phrase, status=status, detail=detail, **more)


def _away(detail: str) -> _Answer:
    return _Answer(_plain(503, detail), {"Retry-After": str(RETRY_AFTER_SECONDS)})


@singledispatch
def _answer(error: Exception) -> _Answer:
    return _Answer(_plain(500, "Something went wrong in the server. It has been logged."))


@_answer.register
def _(error: HTTPException) -> _Answer:
    if error.status_code == 500 and error.detail == "client disconnected prematurely":
        return _Answer(_plain(400, "The body ended early."))  # nobody reads it, and nothing is wrong here
    if error.status_code == 500:
        return _answer.dispatch(Exception)(error)
    return _Answer(_plain(error.status_code, error.detail[:MAX_SHOWN]), dict(error.headers or {}))


@_answer.register
def _(error: ValidationException) -> _Answer:
    fields = [_field(entry) for entry in error.extra or [] if isinstance(entry, dict)]
    if not fields:
        return _Answer(_plain(400, error.detail[:MAX_SHOWN]))
    detail = "; ".join(f"{field.field}: {field.message}" for field in fields[:10])
    problem = Problem(
        type=f"{_URN}invalid", title="A field is not valid", status=400, detail=detail, errors=fields[:100]
    )
    return _Answer(problem)


def _field(entry: dict[str, Any]) -> FieldProblem:
    source = entry.get("source")
    key, message = str(entry.get("key", "body")), str(entry.get("message", "is not valid"))
    if source == "body" and key == "data":  # the handler's name for all of it
        key = "body"
        message = "is missing: give a JSON object with a prompt" if message == "'data'" else message
    return FieldProblem(
        field=key[:MAX_SHOWN],
        message=message[:MAX_SHOWN],
        source=None if source is None else str(getattr(source, "value", source)),
    )


@_answer.register
def _(error: Unauthorized) -> _Answer:
    # RFC 6750, section 3: no error code where no token was given at all; the bare scheme serves both.
    return _Answer(_plain(401, str(error)), {"WWW-Authenticate": "Bearer"})


@_answer.register
def _(error: NotYours) -> _Answer:
    return _Answer(_plain(404, "Not found."))  # the same words as for what does not exist


@_answer.register
def _(error: RunConflict) -> _Answer:
    run_id = error.run_id or msgspec.UNSET
    title = "The session has an active run"
    return _Answer(
        Problem(type=f"{_URN}run-conflict", title=title, status=409, detail=str(error), run_id=run_id)
    )


@_answer.register
def _(error: IdempotencyConflict) -> _Answer:
    title = "The idempotency key was used for another request"
    return _Answer(Problem(type=f"{_URN}idempotency", title=title, status=422, detail=str(error)))


@_answer.register
def _(error: LimitReached) -> _Answer:
    problem = Problem(
        type=f"{_URN}limit",
        title="A limit of the user is reached",
        status=429,
        detail=str(error),
        limit=error.limit,
        allowed=error.allowed,
        window=error.window or msgspec.UNSET,
        retry_after=error.retry_after,
    )
    # draft-ietf-httpapi-ratelimit-headers: quota and window, or a quota of what is open at once.
    span = f"w={error.window}" if error.window else 'qu="concurrent-requests"'
    headers = {
        "Retry-After": str(error.retry_after),
        "RateLimit-Policy": f'"{error.limit}";q={error.allowed};{span}',
        "RateLimit": f'"{error.limit}";r=0;t={error.retry_after}',
    }
    return _Answer(problem, headers)


@_answer.register
def _(error: CursorError) -> _Answer:
    status = 410 if error.reason == "expired" else 400
    title = "The cursor has expired" if status == 410 else "The cursor is not a place in this session"
    return _Answer(
        Problem(type=f"{_URN}cursor", title=title, status=status, detail=str(error), reason=error.reason)
    )


@_answer.register
def _(error: MigrationNeeded) -> _Answer:
    return _away("The database is not ready. Try again soon.")


@_answer.register
def _(error: ArchiveUnavailable) -> _Answer:
    return _away("The archive, where older events are, does not answer. Try again soon.")


@_answer.register
def _(error: PyMongoError) -> _Answer:
    if is_passing(error):
        return _away("The database does not answer. Try again soon.")
    return _answer.dispatch(Exception)(error)


@_answer.register
def _(error: DocumentDamaged) -> _Answer:
    return _Answer(_plain(500, "Stored data cannot be read. It has been logged."))


@_answer.register(UnicodeError)
def _(error: Exception) -> _Answer:
    return _Answer(_plain(400, f"The request cannot be read: {error}"[:MAX_SHOWN]))


@_answer.register
def _(error: RecursionError) -> _Answer:
    return _Answer(_plain(400, "The body is nested too deeply."))
