"""The short torture run is green, and the harness sees what is planted in the product.

`make torture` runs longer, with all faults; `make torture-proof` shows all plants.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.faults.proof import Shown
from tests.faults.report import as_text

FAULTS = (
    "kill api",
    "kill horse",
    "kill primary",
    "step down",
    "stop primary 5 s",
    "getMore 286",
    "getMore 280",
    "reset at primary",
    "phantom",
    "enqueue twice",
)
# Those that show in seconds; in the order in which they do.
PLANTS = ("double-finish", "unordered-batches", "own-time", "local-reads")
RUN_SECONDS = 540  # the longest, on a machine that is busy with other things: then something hangs


def _output(arguments: Sequence[str], place: Path) -> str:
    """What a process of the harness printed: it forks, kills and warns for itself."""
    process = subprocess.run(
        [sys.executable, "-m", *arguments],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(place)},
        timeout=RUN_SECONDS,
        text=True,
        check=False,
    )
    return process.stdout


def test_nothing_is_lost_doubled_or_reordered_under_faults(tmp_path: Path) -> None:
    only = f"^({'|'.join(FAULTS)})$"
    load = ["--sessions", "3", "--words", "100", "--rounds", "1", "--rest", "2", "--seed", "7"]
    output = _output(["tests.faults.torture", *load, "--only", only, "--json"], tmp_path)
    report: dict[str, Any] = json.loads(output)
    print(as_text(report))
    assert report["violations"] == []
    assert {struck["kind"] for struck in report["timeline"]} == set(FAULTS)
    assert report["figures"]["phantoms"] == 3
    assert report["figures"]["lost"] == 0
    # Not all: some answers die with a process.
    assert 0 < report["figures"]["acknowledged"] <= report["events"]


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Shown]:
    """What became of each plant, all on the same servers."""
    output = _output(["tests.faults.proof", *PLANTS, "--json"], tmp_path_factory.mktemp("proof"))
    print(output)
    lines = [msgspec.json.decode(line, type=Shown) for line in output.splitlines()]
    return {line.plant: line for line in lines}


@pytest.mark.parametrize("plant", PLANTS)
def test_the_harness_goes_red_for_a_planted_bug(plant: str, shown: dict[str, Shown]) -> None:
    assert shown[plant].caught, shown[plant].line()
