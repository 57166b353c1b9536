"""The indexes at start-up: made in the background, so that the API starts without a database."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from pymongo.errors import PyMongoError

from tailrace.errors import MigrationNeeded
from tailrace.mongo import Database, end_task, ensure_indexes

__all__ = ["Indexes"]

_RETRY_SECONDS = (0.5, 15.0)  # first and longest wait between tries

log = logging.getLogger(__name__)


class Indexes:
    """Makes the indexes, however long MongoDB takes to come.

    An API that exits while the database is away would be restarted in a loop and take readers with it; it
    starts, and says on `/readyz` what it waits for.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._status: str | None = "the indexes are not made yet"

    def status(self) -> str | None:
        """None when the indexes stand, else what is missing."""
        return self._status

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Make them while the body runs; leaving it stops trying."""
        task = asyncio.create_task(self._make(), name="indexes")
        try:
            yield
        finally:
            await end_task(task)

    async def _make(self) -> None:
        wait, longest = _RETRY_SECONDS
        while self._status is not None:
            try:
                await ensure_indexes(self._database)
            except (PyMongoError, MigrationNeeded) as error:
                self._tell(error)
                await asyncio.sleep(wait)
                wait = min(wait * 2, longest)
            else:
                self._status = None

    def _tell(self, error: Exception) -> None:
        words = str(error) if isinstance(error, MigrationNeeded) else "MongoDB does not answer"
        if words != self._status:
            log.warning("The indexes cannot be made: %s", words, extra={"action": "indexes"})
        self._status = words
