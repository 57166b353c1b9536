"""Measure Tailrace beside what people would use instead, and write a report.

make bench [ARGS="--only a,e --quick"]
"""

from __future__ import annotations

import argparse
import resource
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from ops.bench.deployment import deployment
from ops.bench.loads import LOADS
from ops.bench.reading import Reading
from ops.bench.report import write_report
from ops.bench.run import Run
from ops.bench.stop import Stop
from ops.bench.system import SYSTEMS

_FILES = 12_000  # open files that 10,000 streams need, in the load generator and in the server


def main() -> int:
    """Measure and report; the exit status, which is a shell's if a signal stopped it."""
    options = _options()
    stop = Stop()
    files = _raise_open_files()
    if files < _FILES and "c" in options.only:
        print(f"Only {files:,} files may be open here: (c) needs {_FILES:,} (ulimit -n).", file=sys.stderr)
    readings: list[Reading] = []
    heading = _heading(options)
    try:
        _measure(options, readings)
    except BaseException:
        if stop.signal is None:
            raise
        # Whatever was raised: what was cut off on the way fails as it must.
        stopped = f"Stopped by {stop.signal.name}: this is what was measured until then."
        print(stopped, file=sys.stderr)
        heading = f"**{stopped}** {heading}"
    stop.ignored()
    print(write_report(options.out, readings, heading=heading))
    print(f"\nMore in {options.out / 'report.md'}.")
    return 128 + stop.signal if stop.signal else 0


def _measure(options: argparse.Namespace, readings: list[Reading]) -> None:
    with deployment() as servers:
        run = Run(
            servers,
            systems=options.systems,
            rounds=options.rounds or (1 if options.quick else 3),
            scale=0.25 if options.quick else options.scale,
            full=options.full,
            runs=options.runs,
        )
        for letter in options.only:
            for reading in LOADS[letter](run):
                readings.append(reading)
                run.say(f"        {_shown(reading.values)} {reading.note}")


def _heading(options: argparse.Namespace) -> str:
    if options.quick or options.scale != 1:
        return "A look at a part of the size, not figures to quote: names of cases tell the full size."
    return "One run, all systems side by side."


def _shown(values: Mapping[str, float]) -> str:
    return "  ".join(f"{name}={value:,.4g}" for name, value in values.items())


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make bench", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    letters = ",".join(LOADS)
    parser.add_argument("--only", type=_some_of(LOADS), default=list(LOADS), metavar=letters, help="loads")
    names = [system.name for system in SYSTEMS]
    parser.add_argument("--systems", type=_some_of(names), default=names, metavar=",".join(names))
    parser.add_argument(
        "--runs", type=_counts, default=[20, 50], metavar="20,50", help="at once in (g): how many fit here?"
    )
    parser.add_argument("--rounds", type=int, default=0, help="measurements of each (3)")
    parser.add_argument("--quick", action="store_true", help="one round of a quarter: a look, no figures")
    parser.add_argument("--scale", type=float, default=1.0, help=argparse.SUPPRESS)
    parser.add_argument("--full", action="store_true", help="also 10,000,000 stored events")
    parser.add_argument("--out", type=Path, default=Path(".bench"), help="where the report goes (.bench)")
    return parser.parse_args()


def _some_of(known: Iterable[str]) -> Callable[[str], list[str]]:
    def chosen(text: str) -> list[str]:
        names = text.split(",")
        if unknown := [name for name in names if name not in known]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of them")
        return names

    return chosen


def _counts(text: str) -> list[int]:
    counts = text.split(",")
    if wrong := [count for count in counts if not count.isdecimal() or int(count) < 1]:
        raise argparse.ArgumentTypeError(f"{wrong[0]!r} is no number of runs")
    return [int(count) for count in counts]


def _raise_open_files() -> int:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


if __name__ == "__main__":
    sys.exit(main())
