"""Since when: the moments a person types."""

from __future__ import annotations

import math
import re
from datetime import datetime

__all__ = ["since_of"]

_AGE = re.compile(r"(\d{1,9})([smhd])", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


def since_of(text: str | float | None, *, now: float) -> float | None:
    """Unix seconds for an age ("30s", "10m", "2h", "7d"), Unix seconds or an ISO time (local if no zone).

    Raises `ValueError` that says what is allowed.
    """
    if text is None:
        return None
    age = _AGE.fullmatch(str(text).strip())
    if age:
        return max(0.0, now - int(age[1]) * _SECONDS[age[2]])
    try:
        seconds = float(text)
    except ValueError:
        try:
            seconds = datetime.fromisoformat(str(text).strip()).timestamp()
        except (ValueError, OverflowError) as error:
            raise ValueError(_ALLOWED.format(text)) from error
    if not math.isfinite(seconds) or seconds < 0:
        raise ValueError(_ALLOWED.format(text))
    return seconds


_ALLOWED = (
    "{!r} is no moment: give an age such as 10m or 2h, Unix seconds, or a time such as 2026-01-31T09:30."
)
