"""`/metrics` of the API: what it says, in which words, and to whom."""

from __future__ import annotations

import asyncio

import httpx
import msgspec
import pytest
from litestar import Litestar
from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families
from tests.e2e.stack import until
from tests.integration.api.conftest import Bearer
from tests.integration.live.test_live import ALICE, Reading, Session

from tailrace import metrics
from tailrace.api.app import create_app
from tailrace.api.services import Services
from tailrace.mongo import Database
from tailrace.sessions import Sessions
from tailrace.settings import Settings


async def scraped(api: httpx.AsyncClient) -> dict[str, float]:
    """Each sample as `name{label="value"}`."""
    answer = await api.get("/metrics")
    assert answer.status_code == 200
    return {
        sample.name + "".join(f"{{{name}={value}}}" for name, value in sample.labels.items()): sample.value
        for family in text_string_to_metric_families(answer.text)
        for sample in family.samples
    }


async def test_every_metric_is_there_from_the_beginning(api: httpx.AsyncClient) -> None:
    text = (await api.get("/metrics")).text
    for metric in {*metrics.API, *metrics.GAUGES} - {metrics.ARCHIVE_AGE}:  # which needs an archive
        assert f"# HELP {metric.name} {metric.help}\n" in text
        assert any(line.startswith(metric.name) for line in text.splitlines()), metric.name
    assert "process_resident_memory_bytes " in text


async def test_openmetrics_is_spoken_where_it_is_asked_for(api: httpx.AsyncClient) -> None:
    accept = "application/openmetrics-text;version=1.0.0"
    answer = await api.get("/metrics", headers={"Accept": accept})
    assert answer.headers["content-type"].startswith("application/openmetrics-text; version=1.0.0")
    families = openmetrics.text_string_to_metric_families(answer.text)  # type: ignore[no-untyped-call]
    names = {family.name for family in families}
    assert {"tailrace_sent_events", "tailrace_streams"} <= names


async def test_a_reader_is_counted_with_what_it_is_sent(
    api: httpx.AsyncClient, app: Litestar, database: Database
) -> None:
    services: Services = app.state.services
    session = Session(services.log, "s1")
    await Sessions(database).claim("s1", "alice", title="")
    await session.write("a", "b")
    before = await scraped(api)
    feed = services.live.feed("s1", after=0, reader=ALICE, until=session.until)
    reading = Reading(services.live, feed)
    await until(lambda: feed.state == "live")
    during = await scraped(api)
    await session.finish()
    received = await reading.rest()
    after = await scraped(api)

    def more(name: str) -> float:
        return after[name] - before[name]

    assert during["tailrace_streams{state=live}"] - before["tailrace_streams{state=live}"] == 1
    assert during["tailrace_sessions"] == before["tailrace_sessions"] + 1
    assert after["tailrace_streams{state=live}"] == before["tailrace_streams{state=live}"]
    assert more("tailrace_streams_opened_total") == 1
    assert more("tailrace_sent_events_total") == 3
    assert more("tailrace_sent_bytes_total") == len(received)
    for latency in ("tailrace_delivery_seconds", "tailrace_emit_delivery_seconds"):
        assert more(f"{latency}_count") == 1
        assert 0 <= more(f"{latency}_sum") < 10
    assert after["tailrace_tail_up"] == 1
    assert after["tailrace_tail_silence_seconds"] < 10
    assert after["tailrace_tail_lag_seconds"] < 10


async def test_refusals_and_resets_are_counted(
    served: httpx.AsyncClient, app: Litestar, bearer: Bearer, database: Database
) -> None:
    await Sessions(database).claim("s1", "alice", title="")
    before = await scraped(served)
    assert (await served.get("/api/apps")).status_code == 401
    await served.get(
        "/api/apps/s1/agent/stream-continue?follow=none&last_event_id=x", headers=bearer("alice")
    )
    after = await scraped(served)
    assert after["tailrace_problems_total{status=401}"] == before["tailrace_problems_total{status=401}"] + 1
    reset = "tailrace_stream_notices_total{frame=reset}{reason=malformed}"
    assert after[reset] == before[reset] + 1


async def test_the_deployment_is_told_of_and_left_out_where_it_cannot_be_asked(
    api: httpx.AsyncClient, settings: Settings
) -> None:
    said = await scraped(api)
    assert said["tailrace_queue_jobs"] == said["tailrace_queue_workers"] == 0
    assert [said[f"tailrace_runs{{state={state}}}"] for state in ("waiting", "queued", "running")] == [
        0,
        0,
        0,
    ]


async def test_a_scrape_does_not_wait_for_redis(settings: Settings, database: Database) -> None:
    app = create_app(msgspec.structs.replace(settings, redis_url="redis://127.0.0.1:1/0"))
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]
    async with app.lifespan(), httpx.AsyncClient(transport=transport, base_url="http://test.local") as api:
        async with asyncio.timeout(20):
            while (await api.get("/readyz")).json()["change_stream"] != "ok":
                pass
        said = await scraped(api)
    assert "tailrace_queue_jobs" not in said
    assert said["tailrace_runs{state=queued}"] == 0


@pytest.mark.parametrize("on", [True, False])
async def test_metrics_can_be_switched_off(settings: Settings, on: bool) -> None:
    app = create_app(msgspec.structs.replace(settings, metrics=on))
    assert ("/metrics" in {route.path for route in app.routes}) is on
