"""What a browser needs of the address it uses: an API behind it, and nothing between that buffers streams."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from statistics import median
from uuid import uuid4

import httpx
import jwt

from tailrace.client.sse import Parser
from tailrace.doctor.finding import Finding, bad, fair, good
from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.mongo import Database
from tailrace.sessions import Sessions
from tailrace.settings import Settings
from tailrace.tokens import mint
from tailrace.writer import Writer

__all__ = ["checks"]

USER = "tailrace-doctor"
EVENTS = 5
PAUSE_SECONDS = 0.3  # between the events, so that a buffer shows: it hands over several at once
PATIENCE_SECONDS = 5.0
SLOW_EVENT = 0.25  # seconds from the insert to the client


def checks(
    settings: Settings, database: Database, url: str, token: str | None
) -> list[Callable[[], Awaitable[Sequence[Finding]]]]:
    """The checks, in the order in which they make sense."""
    return [partial(_ready, url), partial(_stream, settings, database, url.rstrip("/"), token)]


async def _ready(url: str) -> list[Finding]:
    async with _http_client() as client:
        try:
            answer = await client.get(f"{url.rstrip('/')}/readyz")
            said = answer.json()
        except httpx.TransportError as error:
            return [bad("api", f"{url} cannot be reached: {error!r}"[:300], _UNREACHED)]
        except (httpx.HTTPError, ValueError) as error:
            advice = "See that this is the API's address, and that the proxy before it passes /readyz on."
            return [bad("api", f"{url} does not answer as the API does: {error!r}"[:300], advice)]
    wrong = [f"{name}: {word}" for name, word in said.items() if name != "ready" and word != "ok"]
    if wrong:
        return [bad("api", "; ".join(wrong), "Mend that first; /readyz turns green by itself.")]
    return [good("api", f"{url} is ready")]


def _http_client() -> httpx.AsyncClient:
    # Without a proxy that the environment names, and with the certificates that it names.
    context = httpx.create_ssl_context()
    return httpx.AsyncClient(timeout=PATIENCE_SECONDS, trust_env=False, verify=context)


_UNREACHED = (
    "See that the address is right, and that it can be reached from here. A certificate that is signed by an "
    "authority of your own, or by itself: name its file in SSL_CERT_FILE."
)


async def _stream(settings: Settings, database: Database, url: str, token: str | None) -> list[Finding]:
    if token is None and settings.jwt_secret is None:
        return [fair("stream", "not looked at, without a token", "Give --token, or set TAILRACE_JWT_SECRET.")]
    token = token or mint(settings, user=USER, seconds=600)
    user = str(jwt.decode(token, options={"verify_signature": False}).get("sub"))
    async with _session(database, user) as session_id:
        log = EventLog(database, retention_seconds=settings.retention_seconds)
        try:
            async with asyncio.timeout(PATIENCE_SECONDS + EVENTS * PAUSE_SECONDS):
                delays = await _delays(log, session_id, url, token)
        except (TimeoutError, httpx.TimeoutException):
            return [bad("stream", f"no event came within {PATIENCE_SECONDS:.0f} s", _BUFFERED)]
        except httpx.HTTPError as error:
            return [
                bad("stream", f"{error!r}"[:300], "Look into the logs of the API and of what is before it.")
            ]
    saw = f"from insert to here in {median(delays) * 1000:.1f} ms, at worst {max(delays) * 1000:.1f} ms"
    if max(delays) > PAUSE_SECONDS and max(delays) - min(delays) > PAUSE_SECONDS / 2:
        return [bad("stream", f"{saw}: events come in heaps", _BUFFERED)]
    if median(delays) > SLOW_EVENT:
        return [fair("stream", saw, "Look at the change stream's figure above, and at the way from there.")]
    return [good("stream", saw)]


_BUFFERED = (
    "Something between here and the API holds the stream back. Switch its buffering and compression off for "
    "text/event-stream (nginx: proxy_buffering off; proxy_http_version 1.1; gzip off)."
)


@asynccontextmanager
async def _session(database: Database, user: str) -> AsyncIterator[str]:
    """A session of `user` that is gone afterwards."""
    session_id = f"doctor-{uuid4().hex[:16]}"
    await Sessions(database).claim(session_id, user, title="tailrace doctor")
    try:
        yield session_id
    finally:
        await database["events"].delete_many({"session_id": session_id})
        await database["sessions"].delete_one({"_id": session_id})


async def _delays(log: EventLog, session_id: str, url: str, token: str) -> list[float]:
    """Seconds from the insert of each of a few events to its arrival here."""
    inserted: dict[int, float] = {}
    delays: list[float] = []
    async with (
        _http_client() as client,
        client.stream(
            "GET",
            f"{url}/api/apps/{session_id}/agent/stream-continue",
            params={"follow": "session"},
            headers={"Authorization": f"Bearer {token}"},
        ) as answer,
    ):
        if answer.status_code != httpx.codes.OK:
            raise httpx.HTTPError(f"the stream was answered with {answer.status_code}")
        parser = Parser()
        writing: asyncio.Task[None] | None = None
        try:
            async for chunk in answer.aiter_raw():
                for block in parser.feed(chunk):
                    writing = writing or asyncio.create_task(_write(log, session_id, inserted))
                    if block.id is not None:
                        now = time.perf_counter()
                        delays.append(now - inserted[int(block.id.rpartition(":")[2])])
                if len(delays) == EVENTS:
                    return delays
        finally:
            if writing is not None:
                await writing
    raise httpx.HTTPError(f"the stream ended after {len(delays)} of {EVENTS} events")


async def _write(log: EventLog, session_id: str, inserted: dict[int, float]) -> None:
    writer = Writer(log, session_id, run_id=uuid4().hex, attempt=1, owns=_always)
    for seq in range(1, EVENTS + 1):
        inserted[seq] = time.perf_counter()
        await writer.append([Draft(event_type="custom", data={"value": "tailrace doctor"})])
        await asyncio.sleep(PAUSE_SECONDS)


async def _always() -> bool:
    return True
