"""The stamp in an event's text, by which the load generator tells when it was handed over, and its place."""

from __future__ import annotations

import time

__all__ = ["stamped"]


def stamped(place: int, *, measured: bool = True) -> str:
    """A stamp of now (CLOCK_MONOTONIC, the same in all processes of a machine) and of `place` in the stream.

    loadgen.c says what it looks like.
    """
    return f"~{'T' if measured else 'W'}{time.monotonic_ns():016x}.{place:08x}"
