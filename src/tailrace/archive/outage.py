"""An outage of the archive, told in the log: once for all who ask meanwhile."""

from __future__ import annotations

import logging
import math
import time

__all__ = ["Outage"]

# From the end of an outage that was told to the next one that is: a store that answers every other request
# would write a line for each of them.
APART_SECONDS = 60.0

log = logging.getLogger(__name__)


class Outage:
    """Hears how the store answers, and logs a warning when an outage begins, and when it is over."""

    def __init__(self) -> None:
        self._began: float | None = None  # time.monotonic() of the first failure since it answered
        self._told = False  # of this one
        self._over_at = -math.inf  # time.monotonic() when the last one that was told was over

    def failed(self, error: Exception) -> None:
        """The store did not answer, or refused."""
        now = time.monotonic()
        self._began = now if self._began is None else self._began
        if not self._told and now >= self._over_at + APART_SECONDS:
            self._told = True
            log.warning("The archive does not answer", extra={"action": "archive", "error": str(error)})

    def answered(self) -> None:
        """The store answered."""
        if self._told and self._began is not None:
            self._over_at = time.monotonic()
            lasted = round(self._over_at - self._began, 1)
            log.warning("The archive answers again", extra={"action": "archive", "seconds": lasted})
        self._began, self._told = None, False
