"""What a running deployment tells of itself: the worker's metrics, and the logs of all processes."""

from __future__ import annotations

import json
import os
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import msgspec
import pytest
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.shared import shared_settings
from tests.e2e.stack import Stack, eventually, until
from tests.integration.worker.test_worker import children

from tailrace import metrics
from tailrace.child import free_port

PROMPT = "what is 6*7? say nothing of Zanzibar"
FAILING = "please fail and keep Zanzibar to yourself"


@pytest.fixture(scope="module")
def stack(mongo_url: str, redis_url: str) -> Iterator[Stack]:
    """Logs for a machine, and a worker that shows its metrics."""
    settings = msgspec.structs.replace(
        shared_settings(mongo_url, redis_url),
        log_format="json",
        worker_metrics_port=free_port(),
        offline_tokens_per_second=100.0,
    )
    with Stack(settings) as stack:
        yield stack


def scraped(stack: Stack) -> dict[str, float]:
    """Each sample of the worker's metrics."""
    port = stack.settings.worker_metrics_port
    text = httpx.get(f"http://127.0.0.1:{port}/metrics", timeout=10, trust_env=False).text
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def horses(stack: Stack) -> list[int]:
    return [horse for worker in children(stack.worker.pid or 0) for horse in children(worker)]


def lines(path: Path) -> list[dict[str, Any]]:
    """The log, each line an object."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def ended(stack: Stack) -> list[dict[str, Any]]:
    """What the worker's log says of runs that ended."""
    return [line for line in lines(stack.worker.log) if line.get("action") == "finish"]


async def test_runs_are_counted_after_their_processes_are_gone(stack: Stack) -> None:
    for _ in range(2):
        await stack.reader("s1").generate(PROMPT)
    await until(lambda: scraped(stack)["tailrace_runs_finished_total{status=success}"] == 2)
    said = scraped(stack)
    for name in ("run_duration", "run_first_event", "queue_wait"):
        assert said[f"tailrace_{name}_seconds_count"] == 2
        assert 0 < said[f"tailrace_{name}_seconds_sum"] < 60
    assert said["tailrace_append_seconds_count"] == said["tailrace_append_events_count"] > 2
    assert said["tailrace_append_events_sum"] > said["tailrace_append_events_count"]
    for metric in metrics.WORKER:
        assert any(name.startswith(metric.name) for name in said), metric.name


async def test_metrics_are_shown_again_after_their_process_was_killed(stack: Stack) -> None:
    supervisor = stack.worker.pid or 0
    await until(lambda: any(children(pid) for pid in children(supervisor)))
    (worker,) = (pid for pid in children(supervisor) if children(pid))
    killed = {worker}
    for _ in range(2):  # the second start waits a moment
        await until(lambda: bool(set(children(supervisor)) - killed))
        (exporter,) = set(children(supervisor)) - killed
        os.kill(exporter, signal.SIGKILL)
        killed.add(exporter)
    await until(lambda: bool(set(children(supervisor)) - killed))
    before = scraped(stack)
    await stack.reader("s7").generate(PROMPT)
    name = "tailrace_runs_finished_total{status=success}"
    await until(lambda: scraped(stack)[name] == before[name] + 1)
    assert worker in children(supervisor)


async def test_a_long_run_is_seen_before_it_ends_and_its_cancel_is_timed(stack: Stack) -> None:
    before = scraped(stack)
    reader = stack.reader("s2")
    async with stack.client() as client:
        accepted = await client.post(
            "/api/apps/s2/agent/generate",
            json={"prompt": "write 10000 words"},
            headers={"Prefer": "respond-async"},
        )
        assert accepted.status_code == 202
        await until(
            lambda: scraped(stack)["tailrace_append_seconds_count"] > before["tailrace_append_seconds_count"]
        )
        await client.post("/api/apps/s2/agent/cancel")
    await reader.read()
    await until(lambda: scraped(stack)["tailrace_runs_finished_total{status=cancelled}"] == 1)
    assert scraped(stack)["tailrace_cancel_seconds_count"] == 1


async def test_a_killed_process_loses_no_more_than_its_last_seconds(stack: Stack) -> None:
    before = scraped(stack)
    async with stack.client() as client:
        await client.post(
            "/api/apps/s3/agent/generate",
            json={"prompt": "write 10000 words"},
            headers={"Prefer": "respond-async"},
        )
        appended = "tailrace_append_seconds_count"
        await until(lambda: scraped(stack)[appended] > before[appended])
        (horse,) = horses(stack)  # while it runs, no spare one waits beside it
        os.kill(horse, signal.SIGKILL)
        await until(lambda: scraped(stack)["tailrace_runs_lost_total{outcome=retried}"] == 1)
        await client.post("/api/apps/s3/agent/cancel")
    await stack.reader("s3").read()


async def test_logs_name_the_run_and_keep_what_was_said_and_secrets_to_themselves(stack: Stack) -> None:
    reader = stack.reader("s4")
    await reader.generate(FAILING)
    await until(lambda: any(line.get("session_id") == "s4" for line in ended(stack)))
    async with stack.client() as client:
        (run,) = (await client.get("/api/apps/s4/agent/runs")).json()["runs"]
        assert (await client.post("/api/apps/s4/agent/generate", content=b'{"prompt": Zanzibar}')).is_error
    text = stack.worker.log.read_text() + stack.api.log.read_text()
    assert {"session_id": "s4", "run_id": run["run_id"], "attempt": 1, "status": run["state"]}.items() <= (
        ended(stack)[-1].items()
    )
    assert all(isinstance(line["level"], str) for line in lines(stack.api.log))
    assert "Zanzibar" not in text
    assert not re.search(r"\b42\b.*answer|said nothing", text)
    assert (stack.settings.jwt_secret or "?") not in text
    assert stack.token()[:20] not in text


def test_the_exporter_ends_with_its_worker(stack: Stack) -> None:
    stack.worker.stop()
    with pytest.raises(httpx.TransportError):
        scraped(stack)
    assert stack.worker.pid is None or not children(stack.worker.pid)
    eventually(lambda: not stack.worker.running)
