"""The faults of the network: each breaks connections by the proxies, and has healed them when it returns."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

from tests.faults.network import MEMBERS
from tests.faults.topology import Topology

from tailrace.mongo import Database

__all__ = ["CUTS"]

Fault = Callable[[Topology, Database, random.Random], Awaitable[str]]
PRODUCT = ("api0", "api1", "worker0", "worker1")
SECONDS = 5.0


async def _at_primary(
    topology: Topology, mode: str, seconds: float, who: tuple[str, ...] | None = PRODUCT
) -> str:
    name = f"mongod{await topology.primary()}"
    async with topology.network.broken(mode, at=[name], who=who) as count:
        await asyncio.sleep(seconds)
    return f"{mode} {count} connections to {name} for {seconds:g} s"


async def freeze_primary(topology: Topology, _: Database, __: random.Random) -> str:
    return await _at_primary(topology, "freeze", SECONDS, (*PRODUCT, *MEMBERS))


async def freeze_primary_for_clients(topology: Topology, _: Database, __: random.Random) -> str:
    """The members see nothing wrong: nobody is elected."""
    return await _at_primary(topology, "freeze", SECONDS)


async def freeze_an_api(topology: Topology, _: Database, rng: random.Random) -> str:
    """One API reaches no member."""
    name = f"api{rng.randrange(2)}"
    async with topology.network.broken("freeze", at=MEMBERS, who=[name]) as count:
        await asyncio.sleep(SECONDS)
    return f"{count} connections of {name}"


async def reset_primary(topology: Topology, _: Database, __: random.Random) -> str:
    return await _at_primary(topology, "reset", 0)


async def half_close_primary(topology: Topology, _: Database, __: random.Random) -> str:
    return await _at_primary(topology, "half", 3)


async def dead_sockets(topology: Topology, _: Database, __: random.Random) -> str:
    return await _at_primary(topology, "dead", 3)


async def slow_primary(topology: Topology, _: Database, __: random.Random) -> str:
    return await _at_primary(topology, "slow", SECONDS)


async def refuse_at_primary(topology: Topology, _: Database, __: random.Random) -> str:
    return await _at_primary(topology, "refuse", 3)


async def freeze_valkey(topology: Topology, _: Database, __: random.Random) -> str:
    async with topology.network.broken("freeze", at=["valkey"], who=None) as count:
        await asyncio.sleep(SECONDS)
    return f"{count} connections"


async def reset_valkey(topology: Topology, _: Database, __: random.Random) -> str:
    return f"{await topology.network.turn('reset', at=['valkey'], who=None)} connections"


async def part_a_secondary(topology: Topology, _: Database, rng: random.Random) -> str:
    name = f"mongod{(await topology.primary() + rng.choice((1, 2))) % 3}"
    async with topology.network.parted(name):
        await asyncio.sleep(SECONDS)
    return name


async def no_majority(topology: Topology, _: Database, __: random.Random) -> str:
    """No member hears of another: the primary steps down, and nobody can follow it."""
    name = f"mongod{await topology.primary()}"
    async with topology.network.parted(*MEMBERS):
        await asyncio.sleep(8)
    return f"{name} was primary, mongod{await topology.primary()} is"


CUTS: dict[str, Fault] = {
    "freeze primary 5 s": freeze_primary,
    "freeze primary for clients 5 s": freeze_primary_for_clients,
    "freeze one api's mongodb 5 s": freeze_an_api,
    "reset at primary": reset_primary,
    "half-close at primary": half_close_primary,
    "dead sockets": dead_sockets,
    "slow primary 5 s": slow_primary,
    "refuse at primary 3 s": refuse_at_primary,
    "freeze valkey 5 s": freeze_valkey,
    "reset at valkey": reset_valkey,
    "part a secondary 5 s": part_a_secondary,
    "no majority 8 s": no_majority,
}
