"""The two stream routes: start a run and read it, or go on reading."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from litestar import Request, get, post
from litestar.datastructures import State
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import HeaderParameter, JSONBody, QueryParameter
from litestar.response.base import ASGIResponse

from tailrace.api.cursor import Start, start_of
from tailrace.api.event_stream import EventStream
from tailrace.api.generate import GenerateRequest, RunAccepted, start_run
from tailrace.api.glance import Glance, glance
from tailrace.api.query import DECIMAL_PATTERN, decimal
from tailrace.api.schema import stream_responses
from tailrace.api.services import Services
from tailrace.api.session import SessionId
from tailrace.live import Until
from tailrace.live.sse import control, notice
from tailrace.mongo import patiently
from tailrace.runs import Run
from tailrace.tokens import Identity

__all__ = ["handlers"]

AuthorizedRequest = Request[Identity, Any, State]
Follow = Literal["run", "session", "none"]
JOIN_SECONDS = 10.0  # more than an election takes: an EventSource that is answered 503 does not come back
KeyHeader = HeaderParameter(name="Idempotency-Key", schema_extra={"pattern": "^[!-~]{0,200}$"})

_ACCEPTED = ResponseSpec(RunAccepted, description="With `Prefer: respond-async`", generate_examples=False)
_NOTHING = ResponseSpec(None, description="Nothing to send, nothing to wait for", generate_examples=False)


@post(
    "/api/apps/{session_id:str}/agent/generate",
    status_code=200,
    responses={202: _ACCEPTED, **stream_responses(404, 408, 409, 413, 415, 422, 429)},
    summary="Start a run and stream it",
)
async def generate(  # noqa: PLR0917 - Litestar passes them by name
    request: AuthorizedRequest,
    services: NamedDependency[Services],
    session_id: SessionId,
    data: JSONBody[GenerateRequest],
    idempotency_key: Annotated[str | None, KeyHeader] = None,
    prefer: Annotated[str | None, HeaderParameter(name="Prefer")] = None,
) -> ASGIResponse:
    """Starts a run in the session, which is made if it is new, and streams it until its `finish`.

    With `Prefer: respond-async` the answer is 202 and the run's address at once.
    """
    key = idempotency_key or None
    # `prefer` is for OpenAPI: it is one line, and there may be several (RFC 7240, section 2).
    if "respond-async" in ",".join(request.headers.getall("prefer", [])).lower():
        run = await start_run(services, request.user, session_id, data, idempotency_key=key)
        return _accepted(run)
    # Before the run is stored: who is told to come back later must not have started one.
    with await services.limits.stream(request.user.user) as held:
        run = await start_run(services, request.user, session_id, data, idempotency_key=key)
        # Without `first_seq` it is the repeat of a request that is about to write the run's first event.
        after = (run.first_seq or run.behind_seq + 1) - 1
        # A repeat of a run that has ended: its events may have expired, and its finish would never come.
        until = Until(kind="replay" if run.finished_at else "finish", run_id=run.run_id)
        opening = _ready(session_id, Start(after=after, last=after + 1), run.run_id)
        feed = services.live.feed(
            session_id, reader=request.user, after=after, until=until, only_run=run.run_id
        )
        return EventStream(services.live, feed, opening=opening, headers=_address(run), held=held.pop_all())


@get(
    "/api/apps/{session_id:str}/agent/stream-continue",
    responses={204: _NOTHING, **stream_responses(404, 429)},
    summary="Replay what was missed, then follow live",
)
async def stream_continue(  # noqa: PLR0917 - Litestar passes them by name
    request: AuthorizedRequest,
    services: NamedDependency[Services],
    session_id: SessionId,
    last_event_header: Annotated[str | None, HeaderParameter(name="Last-Event-ID")] = None,
    last_event_id: Annotated[str | None, QueryParameter(name="last_event_id")] = None,
    since_timestamp: Annotated[
        str | None, QueryParameter(name="since_timestamp", schema_extra={"pattern": DECIMAL_PATTERN})
    ] = None,
    run_id: Annotated[str | None, QueryParameter(name="run_id")] = None,
    follow: Annotated[Follow, QueryParameter(name="follow")] = "run",
) -> ASGIResponse:
    """Streams the session's events from the cursor on: the first given of `Last-Event-ID`, `last_event_id`,
    `since_timestamp` (Unix seconds, inclusive), else the beginning. 204 when there is nothing to send and
    nothing to wait for.
    """
    timestamp = decimal(since_timestamp) if since_timestamp is not None else None

    async def join() -> tuple[Glance, Start]:
        seen = await glance(services, session_id, request.user.user, run_id=run_id)
        cursor = last_event_header or last_event_id or None
        return seen, await start_of(
            services.log, session_id, seen, last_event_id=cursor, since_timestamp=timestamp
        )

    seen, start = await patiently(join, within=JOIN_SECONDS)
    until = _until(follow, seen.running, run_id)
    if until.kind == "replay" and start.reset is None and start.after >= _replay_end(start, seen):
        return ASGIResponse(status_code=204, headers={"cache-control": "no-store"})
    opening = notice("stream.reset", start.reset) if start.reset else b""
    opening += _ready(session_id, start, seen.running)
    feed = services.live.feed(
        session_id, reader=request.user, after=start.after, until=until, only_run=run_id
    )
    held = await services.limits.stream(request.user.user)
    return EventStream(services.live, feed, opening=opening, headers={}, held=held)


handlers = [generate, stream_continue]


def _address(run: Run) -> dict[str, str]:
    stream = f"/api/apps/{run.session_id}/agent/stream-continue?run_id={run.run_id}"
    return {"location": stream, "x-run-id": run.run_id}


def _accepted(run: Run) -> ASGIResponse:
    headers = _address(run)
    accepted = RunAccepted(
        session_id=run.session_id, run_id=run.run_id, state=run.state, stream=headers["location"]
    )
    return ASGIResponse(
        body=msgspec.json.encode(accepted),
        status_code=202,
        headers={**headers, "preference-applied": "respond-async"},
    )


def _until(follow: Follow, running: str | None, run_id: str | None) -> Until:
    if follow == "session":
        return Until(kind="never")
    if follow == "run" and running is not None:
        return Until(kind="finish", run_id=running)
    return Until(kind="replay", run_id=run_id)


def _replay_end(start: Start, seen: Glance) -> int:
    """The last event that a replay would send."""
    return start.last if seen.finish_seq is None else min(seen.finish_seq, start.last)


def _ready(session_id: str, start: Start, run_id: str | None) -> bytes:
    data = {"session_id": session_id, "from_seq": start.after + 1, "tail_seq": start.last, "run_id": run_id}
    return control("stream.ready", data)
