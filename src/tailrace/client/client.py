"""The client: starts runs and follows sessions over HTTP, and comes back by itself when the stream is cut."""

from __future__ import annotations

import asyncio
import inspect
import logging
import uuid
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
import msgspec

from tailrace.client.chains import Chains
from tailrace.client.cursor import Cursor, Follow, Hole
from tailrace.client.errors import (
    BadStream,
    ClientError,
    DigestMismatch,
    ServerError,
    TooManyRequests,
    Unreachable,
    problem_of,
)
from tailrace.client.frame import Frame, frame_of
from tailrace.client.outage import RETRY_SECONDS, Outage, pause
from tailrace.client.sse import Parser

__all__ = ["Client"]

log = logging.getLogger(__name__)

SILENCE_SECONDS = 35.0  # the server comments every 15 s at least; two missed mean a dead connection
Token = str | Callable[[], str | Awaitable[str]]
POST_ATTEMPTS = 4  # to connect: about two seconds, the time of a quick restart


class _Cancelled(msgspec.Struct, frozen=True):
    run_id: str | None


class Client:
    """A user's way to one server. Use it as an async context manager, or call `aclose()`.

    `token` may be a function, also an asynchronous one: it is asked before each request, so that a stream
    whose token expired goes on with a new one. Without it, that ends in `Unauthorized`.

    `patience` is for how many seconds a stream tries to come back before it raises `Unreachable`; None is
    for ever. With `check_digests` a run that is read from its first event is proven whole at its `finish`.
    """

    def __init__(
        self,
        url: str,
        token: Token,
        *,
        patience: float | None = 120.0,
        silence: float = SILENCE_SECONDS,
        check_digests: bool = True,
    ) -> None:
        self._url = url.rstrip("/")
        self._check_digests = check_digests
        self._patience = patience
        self._token = token
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(connect=5.0, read=silence, write=15.0, pool=None),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=20),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close every connection."""
        await self._http.aclose()

    async def generate(
        self,
        session: str,
        prompt: str | None = None,
        *,
        content_parts: Sequence[Mapping[str, Any]] | None = None,
        agent: str | None = None,
        model: str | None = None,
        on_conflict: str | None = None,
        on_disconnect: str | None = None,
        metadata: Mapping[str, Any] | None = None,
        idempotency_key: str | None = None,
    ) -> AsyncGenerator[Frame]:
        """Start a run and yield its frames up to its `finish`, over every cut on the way.

        Raises `Conflict` when the session already has an active run, `Unauthorized`, `NotFound` and the other
        kinds of `Problem` when the server refuses, `Unreachable` when there is none, and `DigestMismatch` in
        place of a `finish` that what was yielded does not lead to.
        """
        given = {
            "prompt": prompt,
            "content_parts": content_parts,
            "agent": agent,
            "model": model,
            "on_conflict": on_conflict,
            "on_disconnect": on_disconnect,
            "metadata": metadata,
        }
        response = await self._start(
            session,
            {name: value for name, value in given.items() if value is not None},
            idempotency_key or uuid.uuid4().hex,
        )
        cursor = Cursor(run_id=response.headers.get("X-Run-Id"))
        async with aclosing(self._read(session, cursor, response)) as frames:
            async for frame in frames:
                yield frame
                if frame.event == "finish" and frame.data.get("run_id") == cursor.run_id:
                    return

    async def follow(
        self,
        session: str,
        *,
        last_event_id: str | None = None,
        since_timestamp: float | None = None,
        run_id: str | None = None,
        follow: Follow = "run",
    ) -> AsyncGenerator[Frame]:
        """Yield what happened in `session` and what happens next, each event once and in order.

        Starts after `last_event_id`, or at `since_timestamp` (Unix seconds), or at the beginning. `follow` is
        where it ends: `run` after the active run, `session` never, `none` after the history. A cut is healed
        by asking again from the last event. When the server no longer knows that place it yields
        `stream.reset`: what was yielded before it no longer counts. Raises as `generate` does.
        """
        cursor = Cursor(
            last_event_id=last_event_id, since_timestamp=since_timestamp, run_id=run_id, follow=follow
        )
        async with aclosing(self._read(session, cursor, None)) as frames:
            async for frame in frames:
                yield frame

    async def cancel(self, session: str) -> str | None:
        """Ask for the end of the session's active run: its id, or None when nothing runs.

        The run ends with a `finish` whose status is `cancelled`, for all who read it; what the agent has said
        until then stays. Harmless when repeated or too late. Raises as `generate` does.
        """
        request = self._http.build_request("POST", self._path(session, "cancel"))
        response = await self._posted(request, harmless=True)
        try:
            return msgspec.json.decode(await response.aread(), type=_Cancelled).run_id
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        finally:
            await response.aclose()

    async def _start(self, session: str, body: dict[str, Any], key: str) -> httpx.Response:
        """The open stream of a new run. Repeated only where nothing was sent: a run must not start twice."""
        headers = {"Accept": "text/event-stream", "Idempotency-Key": key}
        url = self._path(session, "generate")
        request = self._http.build_request("POST", url, json=body, headers=headers)
        return await self._posted(request, harmless=False)

    async def _posted(self, request: httpx.Request, *, harmless: bool) -> httpx.Response:
        """The answer, tried again when there is no connection; also after a cut, where that is `harmless`."""
        for attempt in range(POST_ATTEMPTS):
            try:
                return await self._opened(request)
            except httpx.TransportError as error:
                sent = not isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout))
                if (sent and not harmless) or attempt == POST_ATTEMPTS - 1:
                    raise self._unreachable(error) from error
            await asyncio.sleep(pause(attempt, RETRY_SECONDS))
        raise AssertionError("unreachable")

    async def _read(
        self, session: str, cursor: Cursor, response: httpx.Response | None
    ) -> AsyncGenerator[Frame]:
        """The frames of `response` and of every connection that must follow it."""
        outage = Outage(self._patience)
        chains = Chains()
        while True:
            trouble: Exception | None = None
            parser = Parser()
            try:
                response = response or await self._opened(self._continue(session, cursor))
                outage.connected()
                if response.status_code == 204:
                    await response.aclose()
                    return
                async with aclosing(_frames(response, parser)) as frames:
                    async for frame in frames:
                        outage.hears(frame)
                        if cursor.advance(frame):
                            if chains.take(frame) == "mismatch" and self._check_digests:
                                raise DigestMismatch(str(frame.data.get("run_id")))
                            yield frame
                if cursor.ended:
                    return
            except (httpx.TransportError, TooManyRequests, ServerError, Hole) as error:
                trouble = error
            response = None
            outage.retry_seconds = parser.retry_seconds or outage.retry_seconds
            try:
                outage.ends(trouble)
            except TimeoutError as error:
                raise (trouble if isinstance(trouble, ClientError) else self._unreachable(trouble)) from error
            if outage.begins and isinstance(trouble, httpx.TransportError):
                log.warning("No answer from %s: trying again", self._url, extra={"action": "reconnect"})
            await asyncio.sleep(outage.pause(trouble))

    def _continue(self, session: str, cursor: Cursor) -> httpx.Request:
        headers = {"Accept": "text/event-stream", "Cache-Control": "no-store", **cursor.headers()}
        url = self._path(session, "stream-continue")
        return self._http.build_request("GET", url, params=cursor.params(), headers=headers)

    async def _opened(self, request: httpx.Request) -> httpx.Response:
        token = self._token() if callable(self._token) else self._token
        token = await token if inspect.isawaitable(token) else token
        request.headers["Authorization"] = f"Bearer {token}"
        response = await self._http.send(request, stream=True)
        if response.status_code in (200, 202, 204):
            return response
        try:
            raise await problem_of(response)
        finally:
            await response.aclose()

    def _path(self, session: str, route: str) -> str:
        return f"{self._url}/api/apps/{quote(session, safe='')}/agent/{route}"

    def _unreachable(self, cause: Exception | None) -> Unreachable:
        return Unreachable(f"No answer from {self._url}: {cause or 'the stream ends again and again'}")


async def _frames(response: httpx.Response, parser: Parser) -> AsyncGenerator[Frame]:
    kind = response.headers.get("Content-Type", "").partition(";")[0].strip()
    try:
        if kind != "text/event-stream":
            raise BadStream(f"The answer is {kind or 'of no type'}, not text/event-stream.")
        async for chunk in response.aiter_bytes():
            for block in parser.feed(chunk):
                yield frame_of(block)
    finally:
        await response.aclose()
