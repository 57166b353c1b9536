"""Starting a run: what a client may ask for."""

from __future__ import annotations

import re
import time
from hashlib import sha256
from typing import Annotated, Any, Literal

import msgspec
from litestar.exceptions import ValidationException
from msgspec import Meta

from tailrace.api.admission import admit, earlier
from tailrace.api.services import Services
from tailrace.carry import is_storable
from tailrace.errors import MigrationNeeded, NotYours
from tailrace.logs import bind
from tailrace.runs import Run, RunState, new_run_id
from tailrace.sessions import Session
from tailrace.settings import Settings
from tailrace.tokens import Identity

__all__ = ["GenerateRequest", "RunAccepted", "start_run"]

MAX_PARTS = 100

_KEY = re.compile(r"[!-~]{1,200}", re.ASCII)

# Python's `$` also matches before a last newline, which JSON Schema's does not.
Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_.-]{1,64}$(?!\n)")]


class GenerateRequest(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to run: `prompt` or `content_parts`, and how."""

    prompt: Annotated[str, Meta(min_length=1)] | None = None  # bounded by the settings
    content_parts: Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_PARTS)] | None = None
    agent: Name = "default"
    model: Annotated[str, Meta(min_length=1, max_length=200)] | None = None
    on_conflict: Literal["reject", "enqueue", "interrupt"] = "reject"  # when the session has an active run
    on_disconnect: Annotated[str, Meta(pattern=r"^(continue|cancel|cancel_after:[0-9]{1,6})$(?!\n)")] = (
        "continue"  # when the session's last reader has left; `cancel_after` counts seconds
    )
    metadata: dict[str, Any] = msgspec.field(default_factory=dict)


class RunAccepted(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to `Prefer: respond-async`."""

    session_id: str
    run_id: str
    state: RunState
    stream: str  # where to read it


async def start_run(
    services: Services,
    asker: Identity,
    session_id: str,
    request: GenerateRequest,
    *,
    idempotency_key: str | None,
) -> Run:
    """The run that `request` asks for, admitted to the session; or the one that it made before.

    Raises `ValidationException`, `MigrationNeeded`, `LimitReached`, `NotYours`, `RunConflict` and
    `IdempotencyConflict`.
    """
    _check(request, idempotency_key, services.settings.max_prompt_characters)
    if missing := services.indexes.status():
        raise MigrationNeeded(missing)  # without them a session could have two active runs
    user = asker.user
    run = _run(services, user, session_id, request, idempotency_key)
    before = await earlier(services, run)
    if before is None:
        # Before anything is written: whoever asks too often costs little.
        await services.limits.count_run(user)
    session = await services.sessions.claim(
        session_id, user, title=_title(request), retention_seconds=asker.retention_seconds
    )
    if before is not None:
        return before
    run = msgspec.structs.replace(run, retention_seconds=_kept(services.settings, session))
    bind(run_id=run.run_id, trace_id=run.trace_id)
    admitted = await admit(services, run, session, on_conflict=request.on_conflict)
    if await services.sessions.owned_by(session_id, user) is None:
        # Erased since it was claimed. Whoever erases it later than this look finds the run.
        await services.erasure.again(session_id)
        raise NotYours
    return admitted


def _kept(settings: Settings, session: Session) -> float | None:
    """For how many seconds a run's events are kept; 0 for ever, None as the settings say."""
    if settings.archive_url:
        return 0.0  # what is archived expires, and nothing before
    return session.retention_seconds and max(session.retention_seconds, settings.outliving_seconds)


def _check(request: GenerateRequest, idempotency_key: str | None, max_characters: int) -> None:
    if idempotency_key is not None and _KEY.fullmatch(idempotency_key) is None:
        why = "must be 1 to 200 visible ASCII characters"
        raise ValidationException(extra=[{"key": "Idempotency-Key", "message": why, "source": "header"}])
    if (request.prompt is None) == (request.content_parts is None):
        raise _refused("prompt", "give either prompt or content_parts")
    if request.prompt is not None and not request.prompt.strip():
        raise _refused("prompt", "must not be blank")
    if max_characters and (characters := sum(map(len, _texts(request)))) > max_characters:
        name = "content_parts" if request.prompt is None else "prompt"
        raise _refused(name, f"must have at most {max_characters:,} characters; it has {characters:,}")
    for name in ("content_parts", "metadata"):
        if not is_storable(getattr(request, name)):
            why = (
                "holds what cannot be stored: an integer beyond 64 bits, NUL in a key, `$ref` beside `$id`, "
                "or nesting too deep"
            )
            raise _refused(name, why)
    if any(not isinstance(part.get("type"), str) for part in request.content_parts or ()):
        raise _refused("content_parts", "each part needs a type, such as text or image_url")


def _refused(field: str, why: str) -> ValidationException:
    return ValidationException(extra=[{"key": field, "message": why, "source": "body"}])


def _texts(request: GenerateRequest) -> list[str]:
    if request.prompt is not None:
        return [request.prompt]
    return [text for part in request.content_parts or () if isinstance(text := part.get("text"), str)]


def _title(request: GenerateRequest) -> str:
    # Of the beginning: splitting a million characters takes longer than all the rest.
    return " ".join(" ".join(_texts(request)).lstrip()[:1_000].split())


def _run(
    services: Services, user: str, session_id: str, request: GenerateRequest, idempotency_key: str | None
) -> Run:
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
        cancel_after=_patience(request.on_disconnect),
        idempotency_key=idempotency_key,
        request_hash=sha256(msgspec.json.encode(request, order="deterministic")).hexdigest(),
    )


def _patience(on_disconnect: str) -> float | None:
    """Seconds without a reader until the run is cancelled; None for never."""
    if on_disconnect == "continue":
        return None
    return float(on_disconnect.partition(":")[2] or 0)
