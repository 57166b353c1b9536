"""The report: Markdown for people, JSON for programs, plots."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
from ops.bench.plots import plots
from ops.bench.reading import Reading
from ops.bench.readings import Readings
from ops.bench.system import SYSTEMS
from ops.bench.targets import Target, targets

__all__ = ["write_report"]

_LABELS = {system.name: system.label for system in SYSTEMS}


def write_report(directory: Path, readings: Sequence[Reading], *, heading: str = "") -> str:
    """Write `report.md`, `readings.json` and the plots into `directory`; returns the table of targets."""
    directory.mkdir(parents=True, exist_ok=True)
    found = Readings(readings)
    reached = _targets(targets(found))
    loads = sorted({reading.load for reading in readings})
    plotted = plots(found)
    for name, picture in plotted.items():
        (directory / f"{name}.svg").write_text(picture, encoding="utf-8")
    parts = [
        f"# Benchmark\n\n{heading}\n\n{_machine()}",
        f"## Targets\n\n{reached}",
        *(f"![{name}]({name}.svg)" for name in plotted),
        *(part for load in loads for part in _load(found, load)),
    ]
    (directory / "report.md").write_text("\n\n".join(parts) + "\n", encoding="utf-8")
    (directory / "readings.json").write_bytes(msgspec.json.format(msgspec.json.encode(readings), indent=1))
    return reached


def _machine() -> str:
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    system = f"{platform.system()} {platform.release()}"
    return (
        f"{os.cpu_count()} cores ({_processor()}), {memory:.0f} GiB, {system}, "
        f"Python {platform.python_version()}, {time.strftime('%Y-%m-%d %H:%M')}. Medians of all rounds, with "
        "the least and the most."
    )


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _targets(found: Sequence[Target]) -> str:
    rows = [
        (f"({target.load})", target.what, target.wanted, target.figure, "yes" if target.reached else "**no**")
        for target in found
    ]
    return _table(("load", "what", "target", "figure", "reached"), rows)


def _load(readings: Readings, load: str) -> Iterator[str]:
    for case, systems in readings.cases(load):
        names = list(
            dict.fromkeys(
                name for system in systems for one in readings.of(load, case, system) for name in one.values
            )
        )
        rows = [
            (name, *(str(readings.value(load, case, system, name) or "–") for system in systems))
            for name in names
        ]
        noted = [one for one in readings.all if (one.load, one.case) == (load, case) and one.note]
        notes = [f"- {_LABELS[one.system]}: {one.note}" for one in noted]
        head = ("", *(_LABELS[system] for system in systems))
        yield f"## ({load}) {case}\n\n{_table(head, rows)}" + ("\n\n" + "\n".join(notes) if notes else "")


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
