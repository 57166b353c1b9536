"""What is counted, how it is handed over, and whether the pages, rules and panels speak of what there is."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tailrace import metrics
from tailrace.exposition import Exposition
from tailrace.metrics import Counter, Gauge, Histogram
from tailrace_worker.report import report, report_to

ROOT = Path(__file__).parents[2]
DASHBOARD = json.loads((ROOT / "ops/grafana/dashboards/tailrace.json").read_text(encoding="utf-8"))
ALERTS = ROOT / "ops/prometheus/alerts.yml"
RULES = ALERTS.read_text(encoding="utf-8")
REFERENCE = (ROOT / "docs/reference/metrics.md").read_text(encoding="utf-8")
RUNBOOK = (ROOT / "docs/runbook.md").read_text(encoding="utf-8")

ALL: dict[str, Counter | Histogram | Gauge] = {
    metric.name: metric for metric in (*metrics.API, *metrics.WORKER, *metrics.GAUGES)
}


def series() -> set[str]:
    """The names under which Prometheus stores samples."""
    return {
        name + suffix
        for name, metric in ALL.items()
        for suffix in (("_bucket", "_sum", "_count") if isinstance(metric, Histogram) else ("",))
    }


@pytest.fixture
def receiver() -> Iterator[socket.socket]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with ours, theirs:
        metrics.settle()
        report_to(theirs)
        yield ours
        report_to(None)
        metrics.settle()


def test_a_histogram_counts_what_lies_within_its_bounds() -> None:
    histogram = Histogram("h", "h", (1, 2))
    for value in (-1, 0.5, 1, 1.5, 2, 3):
        histogram.observe(value)
    assert (histogram.counts, histogram.sum) == ([3, 2, 1], 8)
    assert Histogram("h", "h", (1, 2)).counts == [0, 0, 0]


def test_the_exposition_is_what_prometheus_reads() -> None:
    counter = Counter("tailrace_x_total", "x", ("kind",), [("a",), ("b",)])
    counter.add("b", by=2)
    histogram = Histogram("tailrace_y", "y", (1, 2))
    histogram.observe(1.5)
    body, content_type = Exposition((counter, histogram), process=False).shown("")
    assert content_type.startswith("text/plain; version=0.0.4")
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }
    assert samples == {
        ("tailrace_x_total", "a"): 0,
        ("tailrace_x_total", "b"): 2,
        ("tailrace_y_bucket", "1.0"): 0,
        ("tailrace_y_bucket", "2.0"): 1,
        ("tailrace_y_bucket", "+Inf"): 1,
        ("tailrace_y_count",): 1,
        ("tailrace_y_sum",): 1.5,
    }


def test_what_is_reported_arrives_once(receiver: socket.socket) -> None:
    metrics.RUNS_FINISHED.add("success")
    metrics.APPEND_SECONDS.observe(0.2)
    report()
    report(last=True)
    reports = [receiver.recv(65_536), receiver.recv(65_536)]
    for each in reports:
        metrics.absorb(msgspec.json.decode(each))
    assert metrics.RUNS_FINISHED.values["success",] == 1
    assert sum(metrics.APPEND_SECONDS.counts) == 1
    assert metrics.APPEND_SECONDS.sum == 0.2


def test_what_cannot_be_sent_is_part_of_the_next_report(receiver: socket.socket) -> None:
    count = 0
    while not any(metrics.RUNS_FINISHED.values.values()):
        metrics.RUNS_FINISHED.add("error")
        count += 1
        report()
    arrived = 0
    receiver.setblocking(False)
    for _ in range(count - 1):
        metrics.settle()
        metrics.absorb(msgspec.json.decode(receiver.recv(65_536)))
        arrived += int(metrics.RUNS_FINISHED.values["error",])
    metrics.settle()
    metrics.RUNS_FINISHED.add("error", by=count - arrived)
    report(last=True)
    assert msgspec.json.decode(receiver.recv(65_536)) != []
    assert arrived == count - 1


def test_a_report_without_anybody_to_hear_it_is_nothing() -> None:
    metrics.RUNS_FINISHED.add("success")
    report(last=True)
    metrics.settle()


def test_names_follow_the_conventions() -> None:
    for name, metric in ALL.items():
        assert re.fullmatch(r"tailrace_[a-z_]+", name)
        assert name.endswith("_total") is isinstance(metric, Counter)
        assert metric.help.endswith(".")
        labels = metric.labels if isinstance(metric, Counter) else ()
        assert not {"session_id", "run_id", "user"} & set(labels)


def test_the_reference_lists_each_metric_as_it_is() -> None:
    listed = {
        name: (kind, set(re.findall(r"`(\w+)`:", labels)), meaning)
        for name, kind, labels, meaning in re.findall(
            r"^\| `(\w+)` \| (\w+) \|(.*?)\| (.*) \|$", REFERENCE, re.MULTILINE
        )
    }
    assert listed == {
        name: (
            type(metric).__name__.lower(),
            set(metric.labels) if isinstance(metric, Counter) else {getattr(metric, "label", None)} - {None},
            metric.help,
        )
        for name, metric in ALL.items()
    }


def expressions() -> list[str]:
    return [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]


def labels_of(name: str) -> set[str]:
    """The labels that a series may have."""
    metric = ALL.get(re.sub(r"_(bucket|sum|count)$", "", name)) or ALL[name]
    own: set[Any] = set(metric.labels) if isinstance(metric, Counter) else {getattr(metric, "label", None)}
    return {"instance", "job", *(("le",) if name.endswith("_bucket") else ()), *(own - {None})}


@pytest.mark.parametrize("text", [*expressions(), RULES])
def test_panels_and_rules_ask_for_series_that_there_are(text: str) -> None:
    asked = set(re.findall(r"\btailrace_\w+", text))
    assert asked
    assert asked <= series()
    for name, matchers in re.findall(r"\b(tailrace_\w+)\{([^}]*)\}", text):
        assert set(re.findall(r"(\w+)\s*[=!]", matchers)) <= labels_of(name)
    for labels, inner in re.findall(r"by \(([^)]*)\) \((?:rate|increase)?\(?(tailrace_\w+)", text):
        assert set(labels.replace(" ", "").split(",")) <= labels_of(inner)


def test_every_metric_is_on_the_dashboard_or_in_a_rule() -> None:
    asked = " ".join(expressions()) + RULES
    unseen = {name for name in ALL if not re.search(rf"\b{name}(_bucket|_sum|_count)?\b", asked)}
    assert unseen <= {"tailrace_streams_opened_total", "tailrace_sessions", "tailrace_cancels_total"}


def test_every_panel_takes_the_chosen_data_source() -> None:
    (chosen,) = DASHBOARD["templating"]["list"]
    assert (chosen["name"], chosen["type"]) == ("datasource", "datasource")
    for panel in DASHBOARD["panels"]:
        for part in (panel, *panel.get("targets", ())) if panel["type"] != "row" else ():
            assert part["datasource"]["uid"] == "${datasource}"
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])


def test_every_alert_says_what_it_is_and_where_to_read_on() -> None:
    alerts = re.split(r"^ +- alert: ", RULES, flags=re.MULTILINE)[1:]
    assert alerts
    for alert in alerts:
        name = alert.split("\n", 1)[0]
        assert re.search(r"severity: (critical|warning)$", alert, re.MULTILINE), name
        assert "summary: " in alert, name
        assert "description: " in alert, name
        assert f"runbook_url: docs/runbook.md#{name.lower()}\n" in alert, name
        assert f"### {name}\n" in RUNBOOK
    assert set(re.findall(r"^### (\w+)$", RUNBOOK.partition("## Alerts")[2], re.MULTILINE)) >= {
        alert.split("\n", 1)[0] for alert in alerts
    }


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_takes_the_rules() -> None:
    checked = subprocess.run(
        ["promtool", "check", "rules", str(ALERTS)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stderr
