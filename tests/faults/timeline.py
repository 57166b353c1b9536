"""The timeline: each fault that was done, the silence it made, and how long that may be."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

__all__ = ["LIMITS", "Struck", "attribute", "limit_of", "overruns"]

# Seconds from a running run's last event before the fault to its next one, as promised with an election
# timeout of 2 s.
LIMITS = {
    "step down": 2.0,
    "kill primary": 4.0,
    "refuse at primary": 4.0,
    "stop primary": 7.0,
    "freeze primary": 7.0,
    "dead sockets": 6.0,
    "half-close at primary": 6.0,
    "reset at primary": 2.0,
    "getMore": 2.0,
    "kill horse": 10.0,
    "stop horse": 10.0,
    "kill worker pool": 10.0,
    "no majority": 12.0,  # 8 s without one, then an election
}
# Times the promised silence, and at least so many seconds more: then a noisy machine is no excuse.
FAR_OVER = (2.0, 5.0)
AFTERMATH_SECONDS = 15.0  # a silence that begins this long after a fault's end is not its doing


class Struck(msgspec.Struct, kw_only=True):
    """A fault that was done."""

    kind: str
    begin: float  # seconds since the harness began
    end: float = 0.0
    running: int = 0  # runs that were not finished; without one there is nothing to hear
    said: str = ""
    silence: float = 0.0  # the longest that a plain reader of a running run heard nothing because of it


def limit_of(kind: str) -> float | None:
    """The promised seconds, where there is a promise."""
    return next((seconds for name, seconds in LIMITS.items() if kind.startswith(name)), None)


def attribute(struck: Sequence[Struck], silences: Iterable[tuple[float, float]]) -> None:
    """Note each silence, from and to, at the fault that made it.

    That is the first one that began in it; if none did, the last one before it.
    """
    for begin, end in silences:
        during = [each for each in struck if begin <= each.begin < end]
        before = [each for each in struck if each.begin < begin < (each.end or begin) + AFTERMATH_SECONDS]
        if cause := (during[:1] or before[-1:]):
            cause[0].silence = max(cause[0].silence, round(end - begin, 1))


def overruns(struck: Sequence[Struck]) -> list[str]:
    """The silences that were far longer than promised."""
    times, seconds = FAR_OVER
    return [
        f"{each.kind} at {each.begin}: {each.silence} s of silence, {limit:g} s are promised"
        for each in struck
        if (limit := limit_of(each.kind)) is not None and each.silence > max(times * limit, limit + seconds)
    ]
