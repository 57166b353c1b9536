"""Starting a run: what a client may ask for, and the order in which it becomes durable."""

from __future__ import annotations

import time
from typing import Annotated, Any, Literal

import msgspec
from litestar.exceptions import ValidationException
from msgspec import Meta

from tailrace.api.services import Services
from tailrace.carry import is_storable
from tailrace.errors import EnqueueFailed, MigrationNeeded
from tailrace.events import Draft
from tailrace.runs import Run, new_run_id
from tailrace.writer import Writer

__all__ = ["GenerateRequest", "RunAccepted", "start_run"]

MAX_PROMPT_CHARACTERS = 1_000_000
MAX_PARTS = 100

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$")]


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run: `prompt` or `content_parts`, and how."""

    prompt: Annotated[str, Meta(min_length=1, max_length=MAX_PROMPT_CHARACTERS)] | None = None
    content_parts: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_PARTS)] | None = None
    agent: Name = "default"
    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    on_conflict: Literal["reject"] = "reject"  # when the session has an active run
    on_disconnect: Literal["continue"] = "continue"  # when the reader leaves
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class RunAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `Prefer: respond-async`."""

    session_id: str
    run_id: str
    state: Literal["queued"]
    stream: str  # where to read it


async def start_run(services: Services, user: str, session_id: str, request: GenerateRequest) -> Run:
    """Store the run, tell the readers, then hand it to a worker; returns it with its `first_seq`.

    Raises `ValidationException`, `MigrationNeeded`, `NotYours`, `RunConflict`, and `EnqueueFailed` after
    ending the run.
    """
    _check(request)
    if missing := services.indexes.status():
        raise MigrationNeeded(missing)  # without them a session could have two active runs
    await services.sessions.claim(session_id, user, title=_title(request))
    run = _run(services, user, session_id, request)
    await services.runs.create(run)
    writer = Writer(
        services.log,
        session_id,
        run_id=run.run_id,
        attempt=run.attempt,
        owns=lambda: services.runs.owns(run.run_id, run.attempt),
    )
    queued = await writer.append([_draft(run, "run_queued", agent=run.agent)])
    await services.runs.began(run.run_id, queued[0].seq)
    run = msgspec.structs.replace(run, first_seq=queued[0].seq)
    try:
        await services.jobs.enqueue(run)
    except EnqueueFailed as error:
        await _end(services, writer, run, str(error))
        raise
    return run


def _check(request: GenerateRequest) -> None:
    if (request.prompt is None) == (request.content_parts is None):
        raise _refused("prompt", "give either prompt or content_parts")
    if request.prompt is not None and not request.prompt.strip():
        raise _refused("prompt", "must not be blank")
    for name in ("content_parts", "metadata"):
        if not is_storable(getattr(request, name)):
            why = "holds what cannot be stored: an integer beyond 64 bits, NUL in a key, or nesting too deep"
            raise _refused(name, why)
    if any(not isinstance(part.get("type"), str) for part in request.content_parts or ()):
        raise _refused("content_parts", "each part needs a type, such as text or image_url")


def _refused(field: str, why: str) -> ValidationException:
    return ValidationException(extra=[{"key": field, "message": why, "source": "body"}])


def _title(request: GenerateRequest) -> str:
    texts = [str(part.get("text", "")) for part in request.content_parts or ()]
    return " ".join((request.prompt or " ".join(texts)).split())


def _run(services: Services, user: str, session_id: str, request: GenerateRequest) -> Run:
    run_id = new_run_id()
    return Run(
        run_id=run_id,
        session_id=session_id,
        user=user,
        agent=request.agent,
        state="queued",
        active=True,
        attempt=1,
        created_at=round(time.time(), 6),
        prompt=request.prompt or "",
        content_parts=request.content_parts or [],
        model=request.model,
        metadata=request.metadata,
        trace_id=run_id if services.settings.tracing else None,
    )


def _draft(run: Run, event_type: Literal["run_queued", "run_error", "finish"], **data: Any) -> Draft:
    return Draft(event_type=event_type, data=data, trace_id=run.trace_id)


async def _end(services: Services, writer: Writer, run: Run, why: str) -> None:
    """Close a run that no worker will see, so that its readers and the session are free."""
    error = _draft(
        run, "run_error", code="queue_unavailable", message="The job queue does not answer.", retryable=True
    )
    written = await writer.append([error, _draft(run, "finish", status="error")])
    last_seq = written[-1].seq
    await services.sessions.remember_last_seq(run.session_id, last_seq)
    await services.runs.end(run.run_id, run.attempt, status="error", last_seq=last_seq, error=why)
