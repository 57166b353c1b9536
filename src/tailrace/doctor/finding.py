"""A finding: what one check saw, and what to do about it."""

from __future__ import annotations

from typing import Literal

import msgspec

__all__ = ["Finding", "Level", "bad", "fair", "good"]

Level = Literal["ok", "warning", "problem"]


class Finding(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a check saw. A `problem` breaks a promise, now or at the next fault; a `warning` may."""

    check: str
    level: Level
    saw: str  # in words, with figures and units
    advice: str = ""  # what to do; empty when all is well


def good(check: str, saw: str) -> Finding:
    """All is well."""
    return Finding(check=check, level="ok", saw=saw)


def fair(check: str, saw: str, advice: str) -> Finding:
    """It works, and may not when something else fails."""
    return Finding(check=check, level="warning", saw=saw, advice=advice)


def bad(check: str, saw: str, advice: str) -> Finding:
    """It does not work, or a promise is not kept."""
    return Finding(check=check, level="problem", saw=saw, advice=advice)
