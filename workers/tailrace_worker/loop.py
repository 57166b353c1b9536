"""The event loop of a run's process, and its threads, in which LangChain runs the tools that block.

The loop is uvloop's, in which a token costs a sixth less, where it may be had.
"""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

from tailrace.settings import Settings

__all__ = ["new_loop"]

_THREADS = 32  # at most; a model may call many tools at once, and MongoDB's client looks up names in one


def new_loop(settings: Settings) -> asyncio.AbstractEventLoop:
    """A loop of the kind that `settings` ask for; asyncio's own where uvloop is not installed."""
    loop = _loop(settings)
    loop.set_default_executor(_Threads(_THREADS, thread_name_prefix="tool"))
    return loop


class _Threads(ThreadPoolExecutor):
    """Threads for which nobody waits when their loop is closed.

    A thread cannot be stopped, and a tool may go on in it long after its run has ended. The process need not:
    a horse leaves by `os._exit`.
    """

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        super().shutdown(wait=False, cancel_futures=True)


def _loop(settings: Settings) -> asyncio.AbstractEventLoop:
    if settings.worker_loop == "uvloop":
        try:
            import uvloop
        except ImportError:
            pass
        else:
            return uvloop.new_event_loop()
    return asyncio.new_event_loop()
