"""Proof that the harness sees: each planted bug must turn a short run red, which is green without it.

`python -m tests.faults.proof` is `make torture-proof`. The servers stay; the product starts afresh each time.
"""

from __future__ import annotations

import argparse
import asyncio
import logging
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
from tests.faults.report import as_text
from tests.faults.topology import Topology, plants
from tests.faults.torture import SKEW_SECONDS, Torture, parse

__all__ = ["PROOFS", "Proof", "Shown", "main", "prove"]

COMMON = "--rounds 1 --words 80 --kinds plain"
TRIES = 4  # seeds, until a plant is seen: some make a race that is lost only most of the time


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What shows a plant."""

    arguments: str  # of the torture run
    rules: frozenset[str]  # of which at least one must be violated


class Shown(msgspec.Struct, frozen=True, kw_only=True):
    """What became of a plant."""

    plant: str
    caught: bool
    seconds: int
    tries: int  # runs, each with another seed
    rules: dict[str, int]  # how often each was violated, in the last run

    def line(self) -> str:
        """For a table."""
        found = ", ".join(f"{rule} {count}" for rule, count in self.rules.items()) or "nothing"
        said = "caught" if self.caught else "NOT CAUGHT"
        return f"{self.plant:18} {said:10} {self.seconds:4} s  {self.tries} runs  {found}"


def _proof(arguments: str, *rules: str) -> Proof:
    return Proof(arguments=arguments, rules=frozenset(rules))


# Patience is short where a plant leaves readers waiting for ever, and above what the fault itself may cost.
PROOFS = {
    "double-finish": _proof("--only '^kill horse as it ends$' --sessions 0 --patience 30", "finish"),
    "history-first": _proof("--only '^join while the tail opens$' --sessions 2 --patience 10", "stuck"),
    "local-reads": _proof("--only '^phantom$' --sessions 0 --patience 30", "phantom"),
    "no-fence": _proof(
        "--only '^stop horse 12 s$' --sessions 3 --words 1200 --patience 30", "fence", "finish"
    ),
    "no-lease": _proof("--only '^kill worker$' --sessions 5 --words 800 --patience 25", "stuck"),
    "own-time": _proof("--only '^enqueue twice$' --sessions 3 --patience 30", "time"),
    "token-kept": _proof("--only '^join while the tail opens$' --sessions 2 --patience 10", "stuck"),
    "unbounded-queue": _proof("--only '^readers that take nothing$' --sessions 0 --patience 30", "memory"),
    "unordered-batches": _proof(
        "--only '^post while appends are slow$' --sessions 0 --patience 30", "offset", "text", "time"
    ),
    "w1": _proof("--only '^phantom$' --sessions 4 --patience 25", "lost", "hole", "order", "stuck"),
}


def _proving(place: Path) -> Topology:
    """The deployment for the runs below; its servers are to be started once."""
    return Topology(place, tokens_per_second=40.0, workers=3, skew=-SKEW_SECONDS)


def _tortured(topology: Topology, arguments: str, *, plant: str | None, seed: int) -> dict[str, Any]:
    """The report of one run."""
    options = parse([*shlex.split(f"{COMMON} {arguments}"), "--seed", str(seed)])
    options.plant, options.until_red = plant, plant is not None
    return asyncio.run(Torture(options, topology).run())


def _caught(topology: Topology, plant: str, seed: int) -> list[dict[str, Any]]:
    """The reports of runs with `plant`, each with another seed, up to the first that is red as it should."""
    reports: list[dict[str, Any]] = []
    for nth in range(TRIES):
        reports.append(_tortured(topology, PROOFS[plant].arguments, plant=plant, seed=seed + nth))
        if PROOFS[plant].rules & {each["rule"] for each in reports[-1]["violations"]}:
            break
    return reports


def prove(topology: Topology, plant: str, seed: int) -> Shown:
    """Whether the harness sees `plant`."""
    began = time.monotonic()
    reports = _caught(topology, plant, seed)
    rules = Counter(each["rule"] for each in reports[-1]["violations"])
    return Shown(
        plant=plant,
        caught=bool(PROOFS[plant].rules & rules.keys()),
        seconds=round(time.monotonic() - began),
        tries=len(reports),
        rules=dict(rules.most_common()),
    )


def _sound(topology: Topology, names: Sequence[str], seed: int) -> bool:
    """Whether the same runs are green without a plant; prints the report of one that is not."""
    green = True
    for arguments in sorted({PROOFS[name].arguments for name in names}):
        report = _tortured(topology, arguments, plant=None, seed=seed)
        print(f"without a plant {'red' if report['violations'] else 'green'}: {arguments}", flush=True)
        if report["violations"]:
            green = False
            print(as_text(report), flush=True)
    return green


def main() -> int:
    """Prove each plant; 0 when every one was caught and no run was red without it."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults.proof", description=__doc__)
    parser.add_argument("plants", nargs="*", help=f"all by default: {', '.join(plants())}")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true", help="one line a plant; nothing without a plant")
    options = parser.parse_args()
    names = options.plants or plants()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.basicConfig(level=logging.ERROR)
    topology = _proving(Path(tempfile.mkdtemp(prefix="tailrace-proof-")))
    try:
        asyncio.run(topology.start())
        good = options.json or _sound(topology, names, options.seed)
        for name in names:
            shown = prove(topology, name, options.seed)
            good &= shown.caught
            print(msgspec.json.encode(shown).decode() if options.json else shown.line(), flush=True)
    finally:
        topology.stop()
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
