"""Preloading: all that runs have in common is imported and used once, before the processes are forked."""

from __future__ import annotations

import asyncio
import gc
import importlib
import logging
from contextlib import suppress

from tailrace.documents import from_document
from tailrace.errors import DocumentDamaged
from tailrace.messages import Message
from tailrace.mongo import connect
from tailrace.runs import Run
from tailrace.settings import Settings
from tailrace_worker.agents import registry
from tailrace_worker.loop import new_loop
from tailrace_worker.rehearsal import rehearse

__all__ = ["preload"]

log = logging.getLogger(__name__)


def preload(settings: Settings) -> None:
    """Import what runs need and try it out: a forked process then starts in milliseconds, on shared memory.

    An agent's module that cannot be imported is named in the log; its runs will say so too.
    """
    # As Python's manual says for processes that fork: a collection here leaves holes that the children fill,
    # and one there would touch, and so copy, every page.
    gc.disable()
    modules = ["tailrace_worker.job", "langchain.agents", "tzdata"]
    modules += [place.partition(":")[0] for place in registry(settings).values()]
    if settings.tracing:
        modules += ["tailrace_worker.langfuse_trace", "httpcore"]  # which httpx imports at its first client
    if settings.model != "offline":
        provider = settings.model.partition(":")[0] if ":" in settings.model else "openai"
        modules.append(f"langchain_{provider.replace('-', '_')}")
    for module in dict.fromkeys(modules):
        try:
            importlib.import_module(module)
        except Exception as error:
            log.warning("%s cannot be imported: %s: %s", module, type(error).__name__, error)
    try:
        with asyncio.Runner(loop_factory=lambda: new_loop(settings)) as runner:
            runner.run(_try_out(settings))
    except Exception:
        log.exception("the rehearsal failed", extra={"action": "preload"})
    gc.freeze()
    gc.enable()


async def _try_out(settings: Settings) -> None:
    for kind in (Run, Message):
        with suppress(DocumentDamaged):  # msgspec looks at a type when it is first asked for one
            from_document(kind, {"_id": ""})
    async with connect(settings):
        pass  # it never connects: no socket is there to be inherited
    await rehearse("What is 6 * 7?")
