"""How many streams a user may have open at once, over all API processes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager, suppress
from uuid import uuid4

from tailrace.api.limits.store import Store
from tailrace.errors import LimitReached
from tailrace.live.slots import Slots
from tailrace.mongo import end_task

__all__ = ["Streams"]

LEASE_SECONDS = 6  # by Redis's clock: then the streams of a process that died no longer count
RENEW_SECONDS = 2.0
FORGET_SECONDS = 3_600  # then Redis forgets a user of whom no process says anything
SAY_AGAIN_SECONDS = 1_200.0
RETRY_AFTER_SECONDS = 5  # nobody knows when a stream ends

# KEYS: the user's streams by process, and until when each process lives. ARGV: this process, its streams of
# the user with the new one, the limit, and how long to keep them.
_OPEN = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local total = tonumber(ARGV[2])
local counts = redis.call('HGETALL', KEYS[1])
for nth = 1, #counts, 2 do
  if counts[nth] ~= ARGV[1] then
    local until_ms = redis.call('ZSCORE', KEYS[2], counts[nth])
    if until_ms and tonumber(until_ms) > now then
      total = total + tonumber(counts[nth + 1])
    else
      redis.call('HDEL', KEYS[1], counts[nth])
    end
  end
end
if total > tonumber(ARGV[3]) then return 0 end
redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
redis.call('EXPIRE', KEYS[1], ARGV[4])
return 1
"""

# KEYS: the user's streams by process. ARGV: this process, its streams of the user, how long to keep them.
_SAY = """
if ARGV[2] == '0' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
return 1
"""

# KEYS: until when each process lives. ARGV: this process, its lease in ms. Whether it never lapsed.
_RENEW = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
redis.call('ZREMRANGEBYSCORE', KEYS[1], '-inf', now)
local held = redis.call('ZSCORE', KEYS[1], ARGV[1])
redis.call('ZADD', KEYS[1], now + tonumber(ARGV[2]), ARGV[1])
return held and 1 or 0
"""


class Streams:
    """Each process says in Redis how many streams of a user it has, and renews one lease for all of them.

    So opening a stream is one question, open streams cost nothing, and the numbers, being sums and no
    differences, are right again by themselves after an outage.
    """

    def __init__(self, store: Store, limit: int) -> None:
        self._store = store
        self._limit = limit
        self._process = uuid4().hex
        self._processes = f"{store.prefix}:processes"
        self._open: dict[str, int] = {}  # streams here, by user
        self._unsaid: set[str] = set()  # users whose number here Redis may have wrong
        self._closed = asyncio.Event()  # a stream was
        self._turns = Slots(each=1)  # what is said of a user must arrive in order
        self._ask_open = store.redis.register_script(_OPEN)
        self._ask_say = store.redis.register_script(_SAY)
        self._ask_renew = store.redis.register_script(_RENEW)

    async def open(self, user: str) -> ExitStack:
        """Count a stream of `user` until what is returned is closed.

        Raises `LimitReached` when he has as many as he may have.
        """
        async with self._turns.of(user):
            own = self._open.get(user, 0) + 1
            answer = await self._store.ask(
                lambda: self._ask_open(
                    keys=[self._key(user), self._processes],
                    args=[self._process, own, self._limit, FORGET_SECONDS],
                )
            )
            if answer == 0:
                raise LimitReached(
                    "concurrent-streams",
                    f"At most {self._limit} streams may be open at once.",
                    allowed=self._limit,
                    retry_after=RETRY_AFTER_SECONDS,
                )
            # Not `own`: others may have closed while Redis was asked.
            now = self._open[user] = self._open.get(user, 0) + 1
            if answer is None or now != own:
                self._unsaid.add(user)
        held = ExitStack()
        held.callback(self._close, user)
        return held

    @asynccontextmanager
    async def kept(self) -> AsyncIterator[None]:
        """Keep Redis told while the body runs; after it, the streams of this process do not count."""
        task = asyncio.create_task(self._keep(), name="stream-leases")
        try:
            yield
        finally:
            await end_task(task)
            await self._store.ask(lambda: self._store.redis.zrem(self._processes, self._process))

    def _key(self, user: str) -> str:
        return f"{self._store.prefix}:streams:{user}"

    def _close(self, user: str) -> None:
        self._open[user] -= 1
        if not self._open[user]:
            del self._open[user]
        self._unsaid.add(user)
        self._closed.set()

    async def _keep(self) -> None:
        renew_at, all_at = 0.0, time.monotonic() + SAY_AGAIN_SECONDS
        while True:
            if time.monotonic() >= renew_at:
                lapsed = await self._renewed() == 0
                renew_at = time.monotonic() + RENEW_SECONDS
                if lapsed or time.monotonic() >= all_at:
                    all_at = time.monotonic() + SAY_AGAIN_SECONDS
                    self._unsaid.update(self._open)
            elif self._unsaid and not self._store.away:
                await self._say(self._unsaid.pop())
            else:
                with suppress(TimeoutError):
                    async with asyncio.timeout(renew_at - time.monotonic()):
                        await self._closed.wait()
                self._closed.clear()

    async def _renewed(self) -> int | None:
        lease: list[str | int] = [self._process, LEASE_SECONDS * 1000]
        return await self._store.ask(lambda: self._ask_renew(keys=[self._processes], args=lease))

    async def _say(self, user: str) -> None:
        async with self._turns.of(user):
            told: list[str | int] = [self._process, self._open.get(user, 0), FORGET_SECONDS]
            if await self._store.ask(lambda: self._ask_say(keys=[self._key(user)], args=told)) is None:
                self._unsaid.add(user)
