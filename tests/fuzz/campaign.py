"""A fuzzing campaign: a deployment, witnesses who use it, the list, schemathesis, and an audit at the end."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from pymongo import MongoClient
from tests.e2e.stack import Stack, until
from tests.fuzz.abuse import expiry, slow_heads, too_many_streams, unread_streams
from tests.fuzz.audit import audit, pids
from tests.fuzz.bad_input import IN_ORDER, bad_input
from tests.fuzz.bad_tokens import Keys
from tests.fuzz.case import Case, Target, judge, send
from tests.fuzz.foreign import check_foreign, foreign
from tests.fuzz.openapi import Schemathesis, explore
from tests.fuzz.output import check_output
from tests.fuzz.witness import Witness

from tailrace.settings import Settings

__all__ = ["Campaign", "FuzzStack"]

AT_ONCE = 8  # requests of the list
STREAMS = 40  # of one user, at most
USER, EXPLORER, GREEDY = "mallory", "explorer", "greedy"


class FuzzStack(Stack):
    """A deployment that checks tokens by a public key: only so can keys be confused."""

    def __init__(self, settings: Settings, place: Path, *, workers: int = 3) -> None:
        self.keys = Keys()
        pem = place / "issuer.pem"
        pem.write_bytes(self.keys.pem)
        super().__init__(
            msgspec.structs.replace(
                settings,
                jwt_secret=None,
                jwt_public_key_file=str(pem),
                agents="nasty=tests.fuzz.agents:nasty",
                offline_tokens_per_second=300.0,
                send_stall_seconds=4.0,
                max_runs_per_minute=0,
                max_concurrent_runs=0,
                max_concurrent_streams=STREAMS,
            ),
            workers=workers,
        )

    def token(self, user: str = "alice") -> str:
        """A bearer token of `user`, by the issuer."""
        return self.keys.token(user)


class Campaign:
    """Everything at once against one deployment; `report` tells what came of it."""

    def __init__(self, stack: FuzzStack, *, seed: int, witnesses: int = 3) -> None:
        self.witnesses = [Witness(stack, nth, seed=seed) for nth in range(witnesses)]
        self.statuses: Counter[int] = Counter()  # of the list
        self.topics: Counter[str] = Counter()
        self.cases: set[tuple[str, str]] = set()
        self.wrong: list[str] = []
        self.explored = Schemathesis()
        self.rounds = 0
        self.stack = stack
        self._seed = seed
        self._began = time.monotonic()
        self._resident: list[float] = []  # MB of the API, at the beginning and the end

    async def run(self, place: Path, *, minutes: float, examples: int, stateful: bool = True) -> None:
        """Fuzz for `minutes`, the list at least once through and every operation with `examples`.

        `stateful` also tries the operations in sequences, which takes longest.
        """
        target = await self._prepared()
        before = await asyncio.to_thread(pids, self.stack)
        self._resident.append(_resident(self.stack))
        enough = asyncio.Event()
        end = self._began + minutes * 60
        watching = [asyncio.create_task(witness.watch(enough)) for witness in self.witnesses]
        await until(lambda: all(witness.seen.runs or witness.wrong for witness in self.witnesses), 120)
        async with unread_streams(target), asyncio.TaskGroup() as group:
            group.create_task(self._explore(place, examples, end if minutes else None, stateful))
            group.create_task(self._list(target, end))
        enough.set()
        await asyncio.gather(*watching)
        self._resident.append(_resident(self.stack))
        self.wrong += [f"{each.user}: {why}" for each in self.witnesses for why in each.wrong]
        self.wrong += [f"[schemathesis] {why}" for why in self.explored.wrong]
        self.wrong += [f"[audit] {why}" for why in await audit(self.stack, before)]

    async def _prepared(self) -> Target:
        """The users' own sessions, with a finished run each; of one the first events are gone."""
        stack = self.stack
        for user in (USER, EXPLORER):
            for name in ("one", "two", "three"):
                await stack.reader(f"{user}-{name}", user=user).generate("What is 6 * 7?")
        with MongoClient[dict[str, Any]](stack.settings.mongodb_url) as client:
            events = client[stack.settings.mongodb_db]["events"]
            events.delete_many({"session_id": f"{USER}-three", "seq": {"$lt": 5}})
        return Target(
            port=stack.settings.port,
            token=stack.token(USER),
            session=f"{USER}-one",
            other=f"{USER}-two",
            expired=f"{USER}-three",
            foreign=self.witnesses[0].session,
        )

    async def _explore(self, place: Path, examples: int, end: float | None, stateful: bool) -> None:
        seconds = max(10, int(end - time.monotonic())) if end else None
        token = self.stack.token(EXPLORER)
        self.explored = await explore(
            self.stack.url,
            token,
            place,
            seed=self._seed,
            examples=examples,
            seconds=seconds,
            stateful=stateful,
        )

    async def _list(self, target: Target, end: float) -> None:
        while not self.rounds or time.monotonic() < end:
            self.rounds += 1
            await self._round(target, random.Random(f"{self._seed} {self.rounds}"))

    async def _round(self, target: Target, rng: random.Random) -> None:
        nonce = f"r{self.rounds}-"
        cases = bad_input(target, self.stack.keys, USER, nonce)
        in_order = [case for case in cases if case.topic == IN_ORDER]
        free = [case for case in cases if case.topic != IN_ORDER]
        rng.shuffle(free)
        gate = asyncio.Semaphore(AT_ONCE)
        async with asyncio.TaskGroup() as group:
            group.create_task(self._special(target, nonce))
            group.create_task(self._foreign(target))
            for case in free:
                await gate.acquire()
                group.create_task(self._sent(case, target)).add_done_callback(lambda _: gate.release())
        for case in in_order:
            await self._sent(case, target)

    async def _sent(self, case: Case, target: Target) -> None:
        answer = await send(case, target.port)
        self.statuses[answer.status] += 1
        self.topics[case.topic] += 1
        self.cases.add((case.topic, case.name))
        if why := judge(case, answer):
            self.wrong.append(f"[{case.topic}] {case.name}: {why}")

    async def _special(self, target: Target, nonce: str) -> None:
        """What takes more than one request."""
        greedy = msgspec.structs.replace(target, token=self.stack.token(GREEDY), session=f"{nonce}{GREEDY}")
        await self.stack.reader(greedy.session, user=GREEDY).generate("Hello")
        checks = {
            "output": check_output(target, f"{nonce}nasty"),
            "abuse: slow heads": slow_heads(self.stack),
            "abuse: too many streams": too_many_streams(greedy, STREAMS),
            "token: expiry during a stream": expiry(target, self.stack.keys, USER),
        }
        for name, wrong in zip(checks, await asyncio.gather(*checks.values()), strict=True):
            self.topics[name.partition(":")[0]] += 1
            self.cases.add(("special", name))
            self.wrong += [f"[{name}] {why}" for why in wrong]

    async def _foreign(self, target: Target) -> None:
        """Each route of the document, on a session of somebody else."""
        async with self.stack.client(user=USER) as client:
            document = (await client.get("/schema/openapi.json")).json()
        async with self.stack.client(user=self.witnesses[0].user) as client:
            runs = (await client.get(f"/api/apps/{target.foreign}/agent/runs")).json()["runs"]
        for case in foreign(target, document, runs[0]["run_id"]):
            await self._sent(case, target)
            if why := await check_foreign(target, case):
                self.wrong.append(f"[{case.topic}] {case.name}: {why}")

    def report(self) -> dict[str, Any]:
        """The figures."""
        seen = [witness.seen for witness in self.witnesses]
        return {
            "seed": self._seed,
            "seconds": round(time.monotonic() - self._began, 1),
            "cases": len(self.cases),
            "rounds": self.rounds,
            "requests of the list": self.statuses.total(),
            "by status": {str(status): count for status, count in sorted(self.statuses.items())},
            "by topic": dict(sorted(self.topics.items())),
            "requests of schemathesis": self.explored.requests,
            "schemathesis by status": {str(s): count for s, count in sorted(self.explored.statuses.items())},
            "schemathesis by operation": dict(sorted(self.explored.operations.items())),
            "witnesses": len(seen),
            "witnesses' runs": sum(each.runs for each in seen),
            "witnesses' events": sum(each.events for each in seen),
            "witnesses' reconnects": sum(each.reconnects for each in seen),
            "longest silence of a witness's run, s": round(max(each.longest_silence for each in seen), 2),
            "API's memory, MB": self._resident,
            "wrong": self.wrong,
        }


def _resident(stack: Stack) -> float:
    status = Path(f"/proc/{stack.api.pid}/status")
    if not status.exists():  # not Linux
        return 0.0
    kilobytes = next(line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmRSS"))
    return round(int(kilobytes) / 1024, 1)
