"""Revocation: a stream ends when its session was deleted or belongs to somebody else by now."""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

from pymongo.errors import PyMongoError

from tailrace.live.feed import Feed

__all__ = ["Owners", "Revocation"]

log = logging.getLogger(__name__)

LOOK_SECONDS = 2.0  # between looks; a stream is ended within 5 s, which leaves 3 for the answers
BATCH = 200  # sessions asked for at once: their answer holds up the loop for a millisecond

# The owner of each session that exists.
Owners = Callable[[Sequence[str]], Awaitable[Mapping[str, str]]]


class Revocation:
    """Looks up, every two seconds, who owns the sessions that are read here: a query for each 200 of them."""

    def __init__(self, owners: Owners, feeds: Collection[Feed]) -> None:
        self._owners = owners
        self._feeds = feeds
        self._blind = False  # the last look failed

    async def run(self) -> None:
        """Look for ever."""
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            try:
                await self._look()
            except PyMongoError as error:
                # Nobody is cut: an outage of MongoDB would throw out every reader at once, whose streams have
                # nothing to send until it is over. What a revoked reader can gain is bounded by its token.
                if not self._blind:
                    words = {"action": "revocation", "error": str(error)[:200]}
                    log.warning("Owners cannot be looked up; nobody is revoked until they can", extra=words)
                self._blind = True
            else:
                self._blind = False

    async def _look(self) -> None:
        feeds: dict[str, list[Feed]] = defaultdict(list)
        for feed in self._feeds:
            feeds[feed.session_id].append(feed)
        sessions = list(feeds)
        for start in range(0, len(sessions), BATCH):
            batch = sessions[start : start + BATCH]
            owners = await self._owners(batch)
            for session_id in batch:
                for feed in feeds[session_id]:
                    if owners.get(session_id) != feed.reader.user:
                        feed.close("revoked")
