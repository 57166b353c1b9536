"""The event loop of a run's process: uvloop's, in which a token costs a sixth less, where it may be had."""

from __future__ import annotations

import asyncio

from tailrace.settings import Settings

__all__ = ["new_loop"]


def new_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """A loop of the kind that `settings` ask for; asyncio's own where uvloop is not installed."""
    if settings.worker_loop == "uvloop":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()
