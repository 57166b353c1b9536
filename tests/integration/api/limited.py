"""What the tests of the limits ask for: limits that are soon reached, and attempts at them."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tailrace.errors import LimitReached
from tailrace.settings import Settings

__all__ = ["PER_MINUTE", "RUNS", "STREAMS", "allowed", "limited"]

PER_MINUTE, RUNS, STREAMS = 6, 3, 4


def limited(settings: Settings) -> Settings:
    """`settings` with limits that are soon reached."""
    return msgspec.structs.replace(
        settings,
        max_runs_per_minute=PER_MINUTE,
        max_concurrent_runs=RUNS,
        max_concurrent_streams=STREAMS,
        max_prompt_characters=1_000,
    )


async def allowed(attempts: list[Any]) -> int:
    """How many of the attempts did not reach a limit."""
    results = await asyncio.gather(*attempts, return_exceptions=True)
    assert all(not isinstance(each, BaseException) or isinstance(each, LimitReached) for each in results)
    return sum(not isinstance(each, BaseException) for each in results)
