"""The benchmark runs and reports; what it measures is not for a test to judge."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from ops.bench.histogram import Histogram
from ops.bench.reading import Reading

ROOT = Path(__file__).parents[2]


def _bench(out: Path, *options: str, path: str | None = None) -> list[Reading]:
    environ = {**os.environ, **({} if path is None else {"PATH": path})}
    small = ("--scale", "0.01", "--rounds", "1", "--out", str(out))
    argv = [sys.executable, "-m", "ops.bench", *small, *options]
    done = subprocess.run(
        argv, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    return msgspec.json.decode((out / "readings.json").read_bytes(), type=list[Reading])


def test_it_measures_and_reports(tmp_path: Path) -> None:
    readings = _bench(tmp_path, "--only", "a,e", "--systems", "tailrace")
    assert [reading.load for reading in readings] == ["a", "a", "e", "e"]
    assert [reading.values["missing"] for reading in readings] == [0, 0, 0, 0]
    assert all(reading.latency is not None and reading.latency.count for reading in readings[:2])
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert "| (e) | events/s to one reader |" in report
    assert "## (a) 500 events/s" in report
    assert (tmp_path / "replay.svg").read_text(encoding="utf-8").startswith("<svg")


def test_without_a_c_compiler_a_slower_load_generator_sees_every_event(tmp_path: Path) -> None:
    readings = _bench(tmp_path, "--only", "e,g", "--systems", "floor", "--runs", "200", path="")
    assert [reading.load for reading in readings] == ["e", "e", "g"]
    assert [reading.values["missing"] for reading in readings] == [0, 0, 0]
    assert readings[-1].case == "200 runs"
    assert "| (g) | 200 runs: the floor's longest run beyond its own pace |" in (
        tmp_path / "report.md"
    ).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("number", "shown", "status"),
    [(signal.SIGTERM, "events_per_s=", 143), (signal.SIGINT, "(e)", 130)],
    ids=["after a measurement", "before one"],
)
def test_one_that_is_stopped_reports_what_it_has_and_says_so(
    tmp_path: Path, number: signal.Signals, shown: str, status: int
) -> None:
    options = ("--scale", "0.01", "--rounds", "1000", "--only", "e", "--systems", "floor")
    argv = [sys.executable, "-m", "ops.bench", *options, "--out", str(tmp_path)]
    with subprocess.Popen(
        argv, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as bench:
        assert bench.stderr is not None
        try:
            assert any(shown in line for line in bench.stderr)
            os.killpg(bench.pid, number)  # as a terminal does
            _, said = bench.communicate(timeout=60)
        finally:
            bench.kill()
    assert bench.returncode == status, said
    assert f"Stopped by {number.name}" in said
    readings = msgspec.json.decode((tmp_path / "readings.json").read_bytes(), type=list[Reading])
    assert bool(readings) == (number is signal.SIGTERM)
    report = (tmp_path / "report.md").read_text(encoding="utf-8")
    assert f"Stopped by {number.name}" in report
    assert ("## (e) one reader" in report) == bool(readings)


def test_a_percentile_lies_in_the_bucket_that_holds_its_rank() -> None:
    one = Histogram.of([0.001] * 98)
    all_of_them = Histogram.together([one, Histogram.of([0.005, 0.010])])
    assert [all_of_them.ms(percent) for percent in (50, 98, 99, 100)] == [1, 1, 5, 10]
