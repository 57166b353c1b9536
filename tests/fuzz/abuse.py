"""The list's abuse: connections that come slowly, take nothing, or are too many; a token that runs out."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from tests.e2e.stack import Stack
from tests.fuzz.bad_tokens import Keys
from tests.fuzz.case import Case, Target, judge, problem_in, send
from tests.fuzz.wire import Answer, exchange, opened, request

from tailrace.tokens import LEEWAY_SECONDS

__all__ = ["expiry", "slow_heads", "too_many_streams", "unread_streams"]

SLOW = 20  # connections of each kind


async def slow_heads(stack: Stack) -> list[str]:
    """Heads that come a byte at a time, or never: each is told so, or closed, soon after the set time."""
    port, patience = stack.settings.port, stack.settings.send_stall_seconds

    async def slow(first: bytes) -> Answer:
        reader, writer = await opened(port)
        try:
            writer.write(first)
            raw = b""
            async with asyncio.timeout(20 * patience + 30):
                while not reader.at_eof():
                    with suppress(TimeoutError):
                        async with asyncio.timeout(patience / 8):
                            raw += await reader.read(4096)
                    if first and not raw and not writer.is_closing():
                        writer.write(b"a")
            status = int(raw.split(b" ")[1]) if raw else 0
            return Answer(status=status, headers={}, body=raw, ended=True)
        except TimeoutError:
            return Answer(status=-1, headers={}, body=b"", ended=False)
        except OSError:
            return Answer(status=0, headers={}, body=b"", ended=True)
        finally:
            writer.close()

    begun = b"GET /api/apps HTTP/1.1\r\nHost: a\r\nX-Slow: "
    answers = await asyncio.gather(*(slow(begun) for _ in range(SLOW)), *(slow(b"") for _ in range(SLOW)))
    wrong = [f"a slow head: {each.status}" for each in answers[:SLOW] if each.status not in (408, 0)]
    return wrong + [f"a silent connection: {each.status}" for each in answers[SLOW:] if each.status != 0]


@asynccontextmanager
async def unread_streams(target: Target) -> AsyncIterator[None]:
    """Streams that are asked for and never read, for as long as the body lasts."""
    asked = request("GET", f"{target.agent}/stream-continue?follow=session", [target.bearer])
    async with AsyncExitStack() as stack:
        for _ in range(SLOW):
            _, writer = await opened(target.port)
            stack.callback(writer.close)
            writer.write(asked)
        yield


async def too_many_streams(target: Target, limit: int) -> list[str]:
    """One stream more than a user may have is refused before it starts; later it is not."""
    asked = Case.of(target, "abuse", "one stream more", f"{target.agent}/stream-continue?follow=session", 429)
    writers = []
    try:
        for _ in range(limit):
            reader, writer = await opened(target.port)
            writers.append(writer)
            writer.write(asked.parts[0])
            try:
                await asyncio.wait_for(reader.readuntil(b"stream.ready"), 30)
            except (TimeoutError, asyncio.IncompleteReadError) as error:
                return [f"stream {len(writers)} of {limit} did not begin: {error!r}"]
        answer = await send(asked, target.port)
        if why := judge(asked, answer) or problem_in(answer):
            return [f"one stream more than {limit}: {why}"]
        if not answer.headers.get("retry-after", "").isdigit():
            return [f"429 without Retry-After: {answer.headers}"]
    finally:
        for writer in writers:
            writer.close()
    again = Case.of(
        target, "abuse", "a stream after the others", f"{target.agent}/stream-continue?follow=none", 200
    )
    deadline = time.monotonic() + 30
    answer = await send(again, target.port)
    while answer.status == 429 and time.monotonic() < deadline:
        answer = await send(again, target.port)
    return [] if answer.status == 200 else [f"no stream after the others have ended: {answer.status}"]


async def expiry(target: Target, keys: Keys, user: str) -> list[str]:
    """A stream whose token runs out ends with a word, and not before."""
    token = keys.token(user, exp=int(time.time()) - LEEWAY_SECONDS + 3)
    asked = request(
        "GET", f"{target.agent}/stream-continue?follow=session", [("Authorization", f"Bearer {token}")]
    )
    answer = await exchange(target.port, [asked], half_close=False, within=30)
    said = b'event: stream.expired\ndata: {"reason":"token_expired"'
    if answer.status != 200 or not answer.ended or said not in answer.body:
        return [f"a token that ran out: {answer.status} {answer.ended} {answer.body[-200:]!r}"]
    return []
