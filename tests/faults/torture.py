"""The torture run: real processes, real faults, and readers that accept no hole; see `make torture`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import random
import re
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from tests.faults.admission import break_api_while_admitting
from tests.faults.beginning import stop_horse_as_it_begins
from tests.faults.checker import check
from tests.faults.faults import FAULTS, Fault
from tests.faults.session import KINDS, Reader, Session
from tests.faults.topology import Topology

from tailrace.mongo import Database, connect

__all__ = ["main"]

SETTLE_SECONDS = 150.0  # for what runs when the last fault has healed


class _Struck(msgspec.Struct, kw_only=True):
    """A fault that was done."""

    kind: str
    begin: float  # seconds since the harness began
    end: float = 0.0
    said: str = ""
    silence: float = 0.0  # the longest that a plain reader of a running run saw around it


class Torture:
    """One run of the harness."""

    def __init__(self, options: argparse.Namespace, topology: Topology) -> None:
        self._options = options
        self._topology = topology
        self._rng = random.Random(options.seed)
        self._began = time.monotonic()
        self._until = 0.0
        self._struck: list[_Struck] = []
        self._sessions: list[Session] = []
        self._notes: list[str] = []
        self._readings: list[asyncio.Task[None]] = []  # of sessions that a fault made

    async def run(self) -> dict[str, Any]:
        """Torture and check; the report."""
        await self._topology.start()
        self._say(f"up; logs in {self._topology.place}")
        async with connect(self._topology.settings) as database:
            self._until = time.monotonic() + self._options.minutes * 60
            watch = asyncio.create_task(self._watch())
            load = [asyncio.create_task(self._slot(n)) for n in range(self._options.sessions)]
            try:
                await self._strike(database)
                self._say("all healed; settling")
                await self._topology.settled()
                load += self._readings
                _, pending = await asyncio.wait(load, timeout=SETTLE_SECONDS)
                for task in pending:
                    task.cancel()
                for task in load:
                    if task not in pending and (error := task.exception()) is not None:
                        self._notes.append(f"load: {error!r}")
                if pending:
                    self._notes.append(f"{len(pending)} sessions had not ended after {SETTLE_SECONDS} s")
            finally:
                watch.cancel()
            self._say(f"checking {len(self._sessions)} sessions")
            for session in self._sessions:
                if session.frames or session.accepted:
                    await check(session, database)
        return self._report()

    async def _strike(self, database: Database) -> None:
        faults: dict[str, Fault] = dict(FAULTS)
        faults["stop horse as it begins"] = stop_horse_as_it_begins
        for waiting in (False, True):
            for freeze in (False, True):
                verb, what = "stop" if freeze else "kill", " one that waits" if waiting else ""
                faults[f"{verb} api while it admits{what}"] = self._while_admitting(waiting, freeze)
        if self._options.only:
            faults = {name: fault for name, fault in faults.items() if re.search(self._options.only, name)}
        await asyncio.sleep(4)
        while time.monotonic() < self._until:
            for kind in self._rng.sample(sorted(faults), len(faults)):
                if time.monotonic() >= self._until:
                    return
                struck = _Struck(kind=kind, begin=self._now())
                self._struck.append(struck)
                self._say(f"{kind} …")
                struck.said = await faults[kind](self._topology, database, self._rng)
                struck.end = self._now()
                self._say(f"{kind}: {struck.said}")
                await asyncio.sleep(self._rng.uniform(3, 8))

    def _while_admitting(self, waiting: bool, freeze: bool) -> Fault:
        async def fault(_: Topology, database: Database, __: random.Random) -> str:
            session = self._session()
            self._readings.append(self._read(session))
            try:
                return await break_api_while_admitting(session, database, waiting=waiting, freeze=freeze)
            finally:
                session.posting = False

        return fault

    async def _slot(self, number: int) -> None:
        await asyncio.sleep(number * 0.7)
        while time.monotonic() < self._until:
            session = self._session()
            reading = self._read(session)
            try:
                for nth in range(session.rng.randint(1, 3)):
                    await session.post(_prompt(session.rng), api=session.rng.randrange(2), twice=nth == 1)
                    await asyncio.sleep(session.rng.uniform(0, 2))
            finally:
                session.posting = False
            await reading

    def _session(self) -> Session:
        rng = random.Random(self._rng.getrandbits(64))
        session = Session(self._topology, f"t{len(self._sessions):04}", rng, self._began)
        self._sessions.append(session)
        return session

    def _read(self, session: Session) -> asyncio.Task[None]:
        kinds = ["plain", *session.rng.sample(KINDS[1:], 3)]
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
            await asyncio.sleep(0.5)

    def _report(self) -> dict[str, Any]:
        for session in self._sessions:
            for reader in session.readers:
                for begin, end, _ in reader.silences if reader.kind == "plain" else ():
                    self._attribute(begin - self._began, end - self._began)
        violations = [each for session in self._sessions for each in session.violations]
        frames = sum(len(session.frames) for session in self._sessions)
        readers = [reader for session in self._sessions for reader in session.readers]
        answers: Counter[str] = Counter()
        for session in self._sessions:
            answers.update({str(status): count for status, count in session.answers.items()})
        return {
            "seed": self._options.seed,
            "seconds": round(self._now()),
            "sessions": len(self._sessions),
            "runs": sum(len(session.accepted) for session in self._sessions),
            "events": frames,
            "readers": len(readers),
            "connections": sum(reader.connections for reader in readers),
            "lagged": sum(reader.lagged for reader in readers),
            "post_answers": dict(answers),
            "faults": dict(Counter(struck.kind for struck in self._struck)),
            "timeline": [msgspec.to_builtins(struck) for struck in self._struck],
            "notes": self._notes,
            "violations": [msgspec.to_builtins(each) for each in violations],
        }

    def _attribute(self, begin: float, end: float) -> None:
        """A silence belongs to the last fault that began before its end, if that is not long ago."""
        causes = [struck for struck in self._struck if struck.begin < end and begin < struck.end + 15]
        if causes:
            causes[-1].silence = max(causes[-1].silence, round(end - begin, 1))

    def _now(self) -> float:
        return round(time.monotonic() - self._began, 1)

    def _say(self, text: str) -> None:
        print(f"{self._now():7.1f}  {text}", file=sys.stderr, flush=True)


def _prompt(rng: random.Random) -> str:
    if rng.random() < 0.25:
        return f"What is {rng.randrange(1000)} * {rng.randrange(1000)}?"
    return f"write {rng.randint(60, 260)} words"


def _text(report: dict[str, Any]) -> str:
    lines = [f"{name}: {report[name]}" for name in report if name not in ("timeline", "notes", "violations")]
    worst: dict[str, float] = {}
    for struck in report["timeline"]:
        worst[struck["kind"]] = max(worst.get(struck["kind"], 0.0), struck["silence"])
    lines += ["longest silence of a running run, by fault:"]
    lines += [f"  {seconds:5.1f} s  {kind}" for kind, seconds in sorted(worst.items(), key=lambda x: -x[1])]
    lines += [f"note: {note}" for note in report["notes"]]
    lines += [f"{len(report['violations'])} violations"]
    lines += [
        f"  [{v['rule']}] {v['session_id']} seq {v['seq']} at {v['at']}: {v['detail'][:700]}"
        for v in report["violations"]
    ]
    return "\n".join(lines)


def main() -> int:
    """Torture; 0 when every promise was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.torture", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--sessions", type=int, default=5, help="sessions at once")
    parser.add_argument("--only", help="only the faults whose name this regular expression finds")
    parser.add_argument("--plant", choices=("history-first", "no-fence"), help="break the product on purpose")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.basicConfig(level=logging.ERROR)
    place = Path(tempfile.mkdtemp(prefix="tailrace-torture-"))
    topology = Topology(place, tokens_per_second=40.0, workers=3, plant=options.plant)
    try:
        report = asyncio.run(Torture(options, topology).run())
    finally:
        topology.stop()
    print(json.dumps(report, indent=1) if options.json else _text(report), flush=True)
    return 1 if report["violations"] or report["notes"] else 0


if __name__ == "__main__":
    sys.exit(main())
