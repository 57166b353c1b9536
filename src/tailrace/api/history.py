"""The history of a session, in pages of JSON: its events, messages and runs."""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Sequence
from typing import Annotated, TypeVar

import msgspec
from litestar import MediaType, Response, Router, get
from litestar.di import NamedDependency, Provide
from litestar.exceptions import NotFoundException
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath, QueryParameter
from litestar.types import ControllerRouterHandler

from tailrace.api.problems import documented
from tailrace.api.query import DECIMAL_PATTERN, decimal, page_limit
from tailrace.api.services import Services
from tailrace.api.session import owned_session
from tailrace.api.wire import EventPage
from tailrace.errors import CursorError
from tailrace.eventlog import EventLog
from tailrace.events import event_id, seq_of
from tailrace.messages import Message
from tailrace.runs import Run
from tailrace.sessions import Session
from tailrace.settings import Settings

__all__ = ["After", "Before", "Limit", "LinkedRun", "MessagePage", "RunPage", "handlers"]

Limit = Annotated[
    str | None,
    QueryParameter(
        name="limit",
        description="Items of a page: 1 to 1000, 100 if not given.",
        schema_extra={"pattern": "^([1-9][0-9]{0,2}|1000)$"},
    ),
]
Before = Annotated[
    str | None,
    QueryParameter(
        name="before",
        description="Unix seconds: only older items. `next` of the page before.",
        schema_extra={"pattern": DECIMAL_PATTERN},
    ),
]
After = Annotated[
    str | None,
    QueryParameter(
        name="after",
        description="Unix seconds: only newer items. `next` of the page before.",
        schema_extra={"pattern": DECIMAL_PATTERN},
    ),
]
AfterEvent = Annotated[
    str | None,
    QueryParameter(
        name="after",
        description="An event id or a bare seq: only later events. `next` of the page before.",
        schema_extra={"pattern": "^([A-Za-z0-9_-]{1,64}:[1-9][0-9]{0,17}|0|[1-9][0-9]{0,17})$"},
    ),
]

PAGE_BYTES = 4 * 1024 * 1024  # of a page; the read of events, or the item else, that reaches it is the last
READ_EVENTS = READ_MESSAGES = 100  # of one read of a page; bounds what a read can hold to 25 MB
READ_RUNS = 5  # the same, of what has a whole prompt

T = TypeVar("T", bound=msgspec.Struct)
Read = Callable[[float, int], Awaitable[Sequence[T]]]  # the items behind a time, so many at most
_SEQ = re.compile(r"0|[1-9][0-9]{0,17}", re.ASCII)


class MessagePage(msgspec.Struct, frozen=True, kw_only=True):
    """Messages of one session, oldest first."""

    messages: list[Message]
    next: float | None  # to pass as `after`; null at the end


class LinkedRun(Run, frozen=True, kw_only=True, omit_defaults=True):
    """A run, and where a person sees its trace."""

    trace_url: str | None = None  # where tracing is on

    @classmethod
    def of(cls, run: Run, settings: Settings) -> LinkedRun:
        """The run with its link, if it has a trace."""
        return cls(**msgspec.structs.asdict(run), trace_url=settings.trace_url(run.trace_id))


class RunPage(msgspec.Struct, frozen=True, kw_only=True):
    """Runs of one session, newest first."""

    runs: list[LinkedRun]
    next: float | None  # to pass as `before`; null at the end


class _EncodedPage(msgspec.Struct, frozen=True, kw_only=True):
    """An `EventPage` whose events are the log's own bytes."""

    events: list[msgspec.Raw]
    next: str | None


_EVENTS = ResponseSpec(EventPage, description="A page of events", generate_examples=False)
_MESSAGES = ResponseSpec(MessagePage, description="A page of messages", generate_examples=False)
_RUNS = ResponseSpec(RunPage, description="A page of runs", generate_examples=False)


@get("/events", responses={200: _EVENTS, **documented(404, 410)})
async def events(
    session: NamedDependency[Session],
    services: NamedDependency[Services],
    after: AfterEvent = None,
    limit: Limit = None,
) -> Response[bytes]:
    """A page of the session's events, each the same JSON as its frame on a stream."""
    count = page_limit(limit)
    start = 0 if after is None else await _position(services.log, session.session_id, after)
    # One of the user's turns to read history, as a stream's replay takes: pages are as costly.
    async with services.live.history.of(session.owner):
        page = await _encoded(services.log, session.session_id, after=start, limit=count)
    return Response(msgspec.json.encode(page), media_type=MediaType.JSON)


async def _encoded(log: EventLog, session_id: str, *, after: int, limit: int) -> _EncodedPage:
    """Up to `limit` events, fewer when they are large: a thousand of the largest would take 256 MB."""
    encoded: list[msgspec.Raw] = []
    size = 0
    while len(encoded) < limit and size < PAGE_BYTES:
        found = await log.read(session_id, after=after, limit=min(READ_EVENTS, limit - len(encoded)))
        if not found:
            return _EncodedPage(events=encoded, next=None)
        for event in found:
            frame = event.to_json()
            encoded.append(msgspec.Raw(frame))
            size += len(frame)
        after = found[-1].seq
    return _EncodedPage(events=encoded, next=event_id(session_id, after))


async def _position(log: EventLog, session_id: str, after: str) -> int:
    """The `seq` to read after.

    Raises `CursorError` with reason `malformed`, `other_session`, `unknown` or `expired`.
    """
    seq = int(after) if _SEQ.fullmatch(after) else seq_of(after, session_id)
    bounds = await log.bounds(session_id)
    if seq > bounds.last:
        raise CursorError("unknown", f"The log ends at {bounds.last}; {seq} is beyond it.")
    if seq + 1 < bounds.first and after != "0":
        raise CursorError(
            "expired", f"The events after {seq} have expired; the first that is kept is {bounds.first}."
        )
    return seq


@get("/messages", responses={200: _MESSAGES, **documented(404)})
async def messages(
    session: NamedDependency[Session],
    services: NamedDependency[Services],
    after: After = None,
    limit: Limit = None,
) -> Response[bytes]:
    """A page of the session's messages, oldest first; a short one when they are large."""
    count = page_limit(limit)
    start = -math.inf if after is None else decimal(after, name="after")

    async def read(after: float, limit: int) -> list[Message]:
        return await services.messages.page(session.session_id, after=after, limit=limit)

    async with services.live.history.of(session.owner):
        shown, last = await _filled(read, lambda item: item.timestamp, start, count, at_once=READ_MESSAGES)
    return _page(messages=shown, next=last)


@get("/runs", responses={200: _RUNS, **documented(404)})
async def runs(
    session: NamedDependency[Session],
    services: NamedDependency[Services],
    before: Before = None,
    limit: Limit = None,
) -> Response[bytes]:
    """A page of the session's runs, newest first; a short one when their prompts are large."""
    count = page_limit(limit)
    start = math.inf if before is None else decimal(before, name="before")

    async def read(before: float, limit: int) -> list[LinkedRun]:
        found = await services.runs.page(session.session_id, before=before, limit=limit)
        return [LinkedRun.of(run, services.settings) for run in found]

    async with services.live.history.of(session.owner):
        shown, last = await _filled(read, lambda item: item.created_at, start, count, at_once=READ_RUNS)
    return _page(runs=shown, next=last)


async def _filled(
    read: Read[T], time_of: Callable[[T], float], start: float, limit: int, *, at_once: int
) -> tuple[list[msgspec.Raw], float | None]:
    """Up to `limit` items as JSON, fewer when they are large, and where the next page begins if there is one.

    A page that is cut short has all items of its last one's time: the next page would pass them over.
    """
    encoded: list[msgspec.Raw] = []
    size, ended = 0, False
    while len(encoded) < limit and size < PAGE_BYTES and not ended:
        found, ended = await _some(read, time_of, start, limit - len(encoded), at_once=at_once)
        for item in found:
            if size >= PAGE_BYTES and time_of(item) != start:
                return encoded, start
            encoded.append(msgspec.Raw(msgspec.json.encode(item)))
            size += len(encoded[-1])
            start = time_of(item)
    return encoded, None if ended else start


async def _some(
    read: Read[T], time_of: Callable[[T], float], start: float, room: int, *, at_once: int
) -> tuple[Sequence[T], bool]:
    """The next items, and whether they are the last. Where there is room, all or none of the same time."""
    asked = min(at_once, room)
    while True:
        found = await read(start, asked)
        if len(found) < asked or asked == room:
            return found, len(found) < asked
        if whole := [item for item in found if time_of(item) != time_of(found[-1])]:
            return whole, False
        asked = min(2 * asked, room)


def _page(**members: list[msgspec.Raw] | float | None) -> Response[bytes]:
    return Response(msgspec.json.encode(members), media_type=MediaType.JSON)


@get("/runs/{run_id:str}", responses=documented(404))
async def run(
    session: NamedDependency[Session], services: NamedDependency[Services], run_id: FromPath[str]
) -> LinkedRun:
    """One run of the session."""
    found = await services.runs.get(session.session_id, run_id)
    if found is None:
        raise NotFoundException("Not found.")
    return LinkedRun.of(found, services.settings)


handlers: list[ControllerRouterHandler] = [
    Router(
        "/api/apps/{session_id:str}/agent",
        route_handlers=[events, messages, runs, run],
        dependencies={"session": Provide(owned_session)},
        response_headers={"Cache-Control": "no-store"},
        tags=["history"],
    )
]
