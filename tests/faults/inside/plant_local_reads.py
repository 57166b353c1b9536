"""A plant: history is read with read concern `local`, so it shows what a failover may still roll back."""

from __future__ import annotations

import copy
from contextlib import AbstractAsyncContextManager
from typing import Any, cast

from pymongo.read_concern import ReadConcern

from tailrace.eventlog import EventLog

_init, _watch = EventLog.__init__, EventLog.watch


def _init_local(self: Any, *args: Any, **more: Any) -> None:
    _init(self, *args, **more)
    self._events = self._events.with_options(read_concern=ReadConcern("local"))


def _watch_majority(self: Any, *args: Any, **more: Any) -> AbstractAsyncContextManager[Any]:
    """The server refuses a change stream at any other level."""
    log = copy.copy(self)
    log._events = self._events.with_options(read_concern=ReadConcern("majority"))
    return _watch(log, *args, **more)


cast(Any, EventLog).__init__ = _init_local
cast(Any, EventLog).watch = _watch_majority
