"""Ctrl-C while a run is read: the first asks for the run's end, the second leaves at once."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from tailrace.client.client import Client
from tailrace.client.errors import ClientError

__all__ = ["cancelling_on_interrupt"]


@asynccontextmanager
async def cancelling_on_interrupt(client: Client, session: str) -> AsyncIterator[Callable[[], None]]:
    """Within the body, once what this yields has been called, the first Ctrl-C cancels the session's run.

    Whoever reads the run then sees its `finish`. Before that call, and from the second time on, Ctrl-C is
    what it always is. For the main thread only, where Python handles signals.
    """
    loop = asyncio.get_running_loop()
    before = signal.getsignal(signal.SIGINT)
    asked: list[asyncio.Task[None]] = []
    armed = False

    def arm() -> None:
        nonlocal armed
        if not armed:
            armed = True
            signal.signal(signal.SIGINT, interrupted)

    def interrupted(_number: int, _frame: object) -> None:
        signal.signal(signal.SIGINT, before)
        # Wakes the loop as well, which may be waiting for the next event.
        loop.call_soon_threadsafe(lambda: asked.append(loop.create_task(_ask(client, session))))

    try:
        yield arm
    finally:
        signal.signal(signal.SIGINT, before)
        for task in asked:
            task.cancel()  # the run has ended, or nobody waits for that any more
        await asyncio.gather(*asked, return_exceptions=True)


async def _ask(client: Client, session: str) -> None:
    print("\nCancelling the run; Ctrl-C again leaves at once.", file=sys.stderr, flush=True)
    try:
        await client.cancel(session)
    except ClientError as error:
        print(f"The run goes on, and Ctrl-C leaves it: {error}", file=sys.stderr, flush=True)
