"""The torture run: real processes, real faults, and readers that accept no hole; see `make torture`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import math
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from pymongo.errors import PyMongoError
from tests.faults.admission import break_api_while_admitting
from tests.faults.beginning import stop_horse_as_it_begins
from tests.faults.checker import check
from tests.faults.cuts import CUTS
from tests.faults.deaf import take_nothing
from tests.faults.faults import FAULTS, Fault
from tests.faults.ledger import check_ledgers, holes_found
from tests.faults.memory import Memory
from tests.faults.phantom import show_phantom
from tests.faults.races import RACES, Race, Stage
from tests.faults.report import as_text, told
from tests.faults.session import KINDS, STUCK_SECONDS, Reader, Session, Violation
from tests.faults.timeline import Struck, overruns
from tests.faults.topology import Topology, plants

from tailrace.mongo import Database, connect

__all__ = ["Torture", "main", "parse"]

HOSTILE = 0.15  # of the runs: their agent says what is hard to store
SKEW_SECONDS = 300.0  # by which one worker pool's clock is off: fast with even seeds, slow with odd ones
SETTLE_SECONDS = 150.0  # for what runs when the last fault has healed


class Torture:
    """One run of the harness."""

    def __init__(self, options: argparse.Namespace, topology: Topology) -> None:
        self._options = options
        self._topology = topology
        self._rng = random.Random(options.seed)
        self._began = time.monotonic()
        self._until = 0.0
        self._struck: list[Struck] = []
        self._sessions: list[Session] = []
        self._notes: list[str] = []
        self._figures: Counter[str] = Counter()
        self._memory = Memory()
        self._late = 0.0  # seconds that the harness itself was behind, at most: its readers were then slow
        self._readings: list[asyncio.Task[None]] = []  # of sessions that a fault made

    async def run(self) -> dict[str, Any]:
        """Torture and check; the report."""
        await self._topology.serve(self._options.plant)
        self._say(f"up; logs in {self._topology.place}")
        async with connect(self._topology.settings) as database:
            minutes = math.inf if self._options.rounds else self._options.minutes
            self._until = time.monotonic() + minutes * 60
            watch = asyncio.create_task(self._watch())
            load = [asyncio.create_task(self._slot(n)) for n in range(self._options.sessions)]
            try:
                try:
                    await self._strike(database)
                    self._say("all healed; settling")
                    await self._topology.settled(within=self._options.patience)
                except TimeoutError as late:
                    self._notes.append(f"{self._struck[-1].kind if self._struck else None}: {late!r}")
                self._until = 0.0
                await self._ended(load)
            finally:
                watch.cancel()
            if not self._enough():
                self._say(f"checking {len(self._sessions)} sessions")
                for session in self._sessions:
                    if session.frames or session.accepted:
                        await check(session, database)
                self._figures.update(check_ledgers(self._topology.place, self._sessions))
                self._figures["holes_repaired"] = holes_found(self._topology.place)
        return self._report()

    async def _ended(self, load: Sequence[asyncio.Task[None]]) -> None:
        """Wait until the load, and what reads, has ended by itself, now that it should."""
        deadline = time.monotonic() + SETTLE_SECONDS
        while pending := {task for task in (*load, *self._readings) if not task.done()}:
            if time.monotonic() > deadline or self._enough():
                break
            await asyncio.wait(pending, timeout=0.5)
        for task in pending:
            task.cancel()
        for task in (*load, *self._readings):
            if task not in pending and (error := task.exception()) is not None:
                self._notes.append(f"load: {error!r}")
        if pending and not self._enough():
            self._notes.append(f"{len(pending)} sessions had not ended after {SETTLE_SECONDS} s")

    def _enough(self) -> bool:
        return self._options.until_red and bool(self._violations())

    async def _strike(self, database: Database) -> None:
        faults: dict[str, Fault] = {**FAULTS, **CUTS, "phantom": self._phantom}
        faults["stop horse as it begins"] = stop_horse_as_it_begins
        races = {**RACES, "readers that take nothing": take_nothing}
        faults |= {name: self._race(race) for name, race in races.items()}
        for waiting in (False, True):
            for freeze in (False, True):
                verb, what = "stop" if freeze else "kill", " one that waits" if waiting else ""
                faults[f"{verb} api while it admits{what}"] = self._while_admitting(waiting, freeze)
        if self._options.only:
            faults = {name: fault for name, fault in faults.items() if re.search(self._options.only, name)}
        if self._options.sessions:
            await asyncio.sleep(4)  # until runs are under way
        for _ in range(self._options.rounds or sys.maxsize):
            for kind in self._rng.sample(sorted(faults), len(faults)):
                if self._struck:
                    await asyncio.sleep(self._rng.uniform(self._options.rest / 3, self._options.rest))
                if time.monotonic() >= self._until or self._enough():
                    return
                struck = Struck(kind=kind, begin=self._now(), running=self._running())
                self._struck.append(struck)
                self._say(f"{kind} …")
                try:
                    struck.said = await faults[kind](self._topology, database, self._rng)
                except (PyMongoError, OSError) as error:
                    struck.said = f"went wrong: {error!r}"
                    self._notes.append(f"{kind} at {struck.begin} {struck.said}"[:500])
                struck.end = self._now()
                self._say(f"{kind}: {struck.said}")

    def _while_admitting(self, waiting: bool, freeze: bool) -> Fault:
        async def fault(_: Topology, database: Database, __: random.Random) -> str:
            session = self._session()
            self._readings.append(self._read(session))
            try:
                return await break_api_while_admitting(session, database, waiting=waiting, freeze=freeze)
            finally:
                session.posting = False

        return fault

    async def _phantom(self, _: Topology, __: Database, ___: random.Random) -> str:
        session = self._session()
        self._readings.append(self._read(session))
        try:
            return await show_phantom(session, self._figures)
        finally:
            session.posting = False

    def _race(self, race: Race) -> Fault:
        def read(session: Session) -> None:
            self._readings.append(self._read(session, ["plain", "plain"]))

        async def fault(topology: Topology, database: Database, rng: random.Random) -> str:
            stage = Stage(topology=topology, database=database, begin=self._session, read=read, rng=rng)
            return await race(stage)

        return fault

    async def _slot(self, number: int) -> None:
        await asyncio.sleep(number * 0.7)
        while time.monotonic() < self._until:
            session = self._session()
            reading = self._read(session)
            try:
                for nth in range(session.rng.randint(1, 3)):
                    agent = "torture" if session.rng.random() < HOSTILE else "default"
                    api = session.rng.randrange(2)
                    await session.post(
                        _prompt(session.rng, self._options.words), api=api, twice=nth == 1, agent=agent
                    )
                    await asyncio.sleep(session.rng.uniform(0, 2))
            finally:
                session.posting = False
            # What reads may have a frozen API to wait for. What runs is to be there for the next fault.
            self._readings.append(reading)
            waiting = asyncio.timeout(self._options.patience)
            with suppress(TimeoutError):
                async with waiting:
                    while not session.done and not reading.done():  # noqa: ASYNC110 - in other processes
                        await asyncio.sleep(0.1)

    def _session(self) -> Session:
        rng = random.Random(self._rng.getrandbits(64))
        name = f"t{len(self._sessions):04}"
        session = Session(self._topology, name, rng, self._began, self._options.patience)
        self._sessions.append(session)
        return session

    def _read(self, session: Session, kinds: Sequence[str] = ()) -> asyncio.Task[None]:
        others = self._options.kinds
        kinds = kinds or ["plain", *session.rng.sample(others, min(3, len(others)))]
        session.readers = [
            Reader(session, kind, n, random.Random(session.rng.getrandbits(64)))
            for n, kind in enumerate(kinds)
        ]

        async def read() -> None:
            await asyncio.gather(*(reader.run() for reader in session.readers))

        return asyncio.create_task(read())

    async def _watch(self) -> None:
        """Note a process that ends though no fault ended it, and start it again."""
        while True:
            for name, child in self._topology.children.items():
                if not child.running and name not in self._topology.down:
                    self._notes.append(f"{self._now():.1f}: {child.obituary()}")
                    self._say(f"{name} ended by itself")
                    child.start()
            self._memory.look(self._topology.apis)
            slept_at = time.monotonic()
            await asyncio.sleep(0.5)
            self._late = max(self._late, round(time.monotonic() - slept_at - 0.5, 1))

    def _report(self) -> dict[str, Any]:
        return {
            "seed": self._options.seed,
            **told(self._sessions, self._struck, self._figures, seconds=self._now()),
            "harness_late": self._late,
            "memory_mb": self._memory.report(),
            "notes": self._notes,
            "violations": msgspec.to_builtins(self._violations()),
        }

    def _violations(self) -> list[Violation]:
        beyond = {"memory": self._memory.overruns(), "recovery": overruns(self._struck)}
        grown = [Violation(rule=name, session_id="", detail=said) for name in beyond for said in beyond[name]]
        return [*grown, *(each for session in self._sessions for each in session.violations)]

    def _running(self) -> int:
        return sum(len(session.accepted.keys() - session.finished) for session in self._sessions)

    def _now(self) -> float:
        return round(time.monotonic() - self._began, 1)

    def _say(self, text: str) -> None:
        print(f"{self._now():7.1f}  {text}", file=sys.stderr, flush=True)


def _prompt(rng: random.Random, words: int) -> str:
    if rng.random() < 0.25:
        return f"What is {rng.randrange(1000)} * {rng.randrange(1000)}?"
    return f"write {rng.randint(words // 4, words)} words"


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """The options of a run; of this process if `arguments` is None."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, help="each fault so many times, instead of --minutes")
    parser.add_argument("--until-red", action="store_true", help="stop at the first violation")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=5, help="sessions at once")
    parser.add_argument("--only", help="only the faults whose name this regular expression finds")
    parser.add_argument("--words", type=int, default=400, help="the longest answer")
    parser.add_argument("--rest", type=float, default=8.0, help="seconds between two faults, at most")
    kinds = "of readers beside the plain ones, parted by commas"
    parser.add_argument("--kinds", type=lambda text: text.split(","), default=KINDS[1:], help=kinds)
    patience = "seconds without an event, then a reader counts as stuck"
    parser.add_argument("--patience", type=float, default=STUCK_SECONDS, help=patience)
    parser.add_argument("--plant", choices=plants(), help="break the product on purpose")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args(arguments)


def main() -> int:
    """Torture; 0 when every promise was kept."""
    options = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.basicConfig(level=logging.ERROR)
    place = Path(tempfile.mkdtemp(prefix="tailrace-torture-"))
    skew = -SKEW_SECONDS if options.seed % 2 else SKEW_SECONDS
    topology = Topology(place, tokens_per_second=40.0, workers=3, skew=skew)
    try:
        asyncio.run(topology.start())
        report = asyncio.run(Torture(options, topology).run())
    finally:
        topology.stop()
    print(json.dumps(report, indent=1) if options.json else as_text(report), flush=True)
    return 1 if report["violations"] or report["notes"] else 0


if __name__ == "__main__":
    sys.exit(main())
