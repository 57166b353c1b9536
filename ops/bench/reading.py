"""A reading: what one measurement of one system showed."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
from ops.bench.histogram import Histogram

__all__ = ["Reading"]


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """One measurement. Those of one load, case and system are its rounds."""

    load: str  # its letter
    case: str  # which variant of the load, e.g. "500 events/s"
    system: str  # its name
    values: Mapping[str, float] = {}  # by name; the unit ends the name
    latency: Histogram | None = None  # from handing an event over to its last byte at the client
    note: str = ""  # what went wrong, or what a reader must know
