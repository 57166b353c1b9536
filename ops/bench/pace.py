"""The pace of the whole path: what its runs say, and how fast; importing it takes no LangChain."""

from __future__ import annotations

import msgspec

__all__ = ["TOKENS", "TOKENS_PER_SECOND", "Bare", "Pace"]

TOKENS = 160
TOKENS_PER_SECOND = 20.0


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How runs go."""

    tokens: int = TOKENS  # of each run
    rate: float = 10.0  # runs begun a second: fifty are under way together for half of their time

    @property
    def seconds(self) -> float:
        """What a run takes when nothing holds it up."""
        return self.tokens / TOKENS_PER_SECOND


class Bare(msgspec.Struct, frozen=True, kw_only=True):
    """What `ops.bench.bare_runs` is told: one run in each session, begun in their order."""

    mongodb_url: str
    database: str
    sessions: tuple[str, ...]
    pace: Pace
