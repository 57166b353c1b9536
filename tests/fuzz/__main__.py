"""Bad input and random input against a running server, while other users look on; see `make fuzz`."""

from __future__ import annotations

import argparse
import asyncio
import json
import logging
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from tests.e2e.shared import shared_settings
from tests.fuzz.campaign import Campaign, FuzzStack

from tailrace.embedded import mongod, valkey

__all__ = ["main"]


def main() -> int:
    """Fuzz; 0 when nothing was wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--minutes", type=float, default=2.0)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--witnesses", type=int, default=3)
    parser.add_argument(
        "--examples", type=int, default=50, help="of each operation, in a turn of schemathesis"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.basicConfig(level=logging.ERROR)
    with tempfile.TemporaryDirectory(prefix="tailrace-fuzz-") as name:
        report = _fuzzed(options, Path(name))
    print(json.dumps(report, indent=1) if options.json else _text(report), flush=True)
    return 1 if report["wrong"] else 0


def _fuzzed(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    with mongod(place / "mongo") as mongo_url, valkey(place / "valkey") as redis_url:
        settings = shared_settings(mongo_url, redis_url)
        with FuzzStack(settings, place) as stack:
            campaign = Campaign(stack, seed=options.seed, witnesses=options.witnesses)
            asyncio.run(
                campaign.run(place / "schemathesis", minutes=options.minutes, examples=options.examples)
            )
            return campaign.report()


def _text(report: dict[str, Any]) -> str:
    lines = [f"{name}: {value}" for name, value in report.items() if name != "wrong"]
    return "\n".join([*lines, f"{len(report['wrong'])} wrong", *(f"  {each}" for each in report["wrong"])])


if __name__ == "__main__":
    sys.exit(main())
