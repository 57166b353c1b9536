"""Slots: a user's crowd waits for itself, and not in anybody's way."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from tailrace.live.slots import Slots


class Room:
    """Who is in, and the most that were at once."""

    def __init__(self, slots: Slots) -> None:
        self._slots = slots
        self.inside: list[str] = []
        self.most = 0
        self.leave = asyncio.Event()

    async def visit(self, user: str) -> None:
        async with self._slots.of(user):
            self.inside.append(user)
            self.most = max(self.most, len(self.inside))
            await self.leave.wait()
            self.inside.remove(user)


async def settled() -> None:
    """Let every task go as far as it can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_users_crowd_takes_its_share_and_no_more() -> None:
    room = Room(Slots(each=2, total=4))
    visits = [asyncio.create_task(room.visit(user)) for user in ["alice"] * 50 + ["bob"]]
    await settled()
    assert sorted(room.inside) == ["alice", "alice", "bob"]
    room.leave.set()
    await asyncio.gather(*visits)
    assert room.inside == []
    assert room.most <= 4


async def test_all_together_take_no_more_than_the_total() -> None:
    room = Room(Slots(each=2, total=3))
    visits = [asyncio.create_task(room.visit(user)) for user in "abcdef"]
    await settled()
    assert len(room.inside) == 3
    room.leave.set()
    await asyncio.gather(*visits)


async def test_who_is_cancelled_while_waiting_holds_nothing() -> None:
    slots = Slots(each=1, total=1)
    room = Room(slots)
    first = asyncio.create_task(room.visit("alice"))
    await settled()
    waiting = [asyncio.create_task(room.visit(user)) for user in ("alice", "bob", "bob")]
    await settled()
    for task in waiting:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
    room.leave.set()
    await first
    async with asyncio.timeout(5), slots.of("alice"):
        pass
    async with asyncio.timeout(5), slots.of("bob"):
        pass


async def test_users_that_are_gone_are_forgotten() -> None:
    slots = Slots(each=1)
    for nth in range(1_000):
        async with slots.of(f"user{nth}"):
            pass
    assert len(slots._turns) <= 1
