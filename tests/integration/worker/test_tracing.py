"""Tracing that is off, or that nobody answers. Where somebody does: tests/e2e/test_tracing.py."""

from __future__ import annotations

import subprocess
import sys
import time

import msgspec
import pytest
from tests.e2e.otlp import receiver
from tests.integration.worker.scene import Scene, types

from tailrace.mongo import Database
from tailrace.settings import Settings


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of OpenTelemetry's exporter, not ours to mend
async def test_a_host_that_is_not_there_holds_no_run(settings: Settings, database: Database) -> None:
    with receiver() as server:
        url = server.url
    scene = Scene(
        settings,
        database,
        langfuse_enabled=True,
        langfuse_public_key=f"pk-{settings.mongodb_db}",
        langfuse_secret_key="sk-test",
        langfuse_base_url=url,
    )
    started = time.monotonic()
    events = await scene.perform("hello")
    assert types(events)[-1] == "finish"
    assert events[0].observation_id == events[-1].observation_id is not None
    assert time.monotonic() - started < 30  # without a bound the exporter tries for much longer


def test_nothing_of_langfuse_is_imported_while_tracing_is_off() -> None:
    code = "import sys, tailrace_worker.job, tailrace_worker.worker; print('langfuse' in sys.modules)"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout == "False\n"


async def test_without_tracing_no_event_has_a_trace(settings: Settings, database: Database) -> None:
    keys = {"langfuse_public_key": "pk", "langfuse_secret_key": "sk", "langfuse_enabled": False}
    scene = Scene(msgspec.structs.replace(settings, **keys), database)
    assert {(event.trace_id, event.observation_id) for event in await scene.perform("hello")} == {
        (None, None)
    }
    assert scene.settings.trace_url("a" * 32) is None


def test_a_link_names_the_project_where_it_is_known() -> None:
    keys = {"LANGFUSE_PUBLIC_KEY": "pk", "LANGFUSE_SECRET_KEY": "sk", "LANGFUSE_HOST": "https://lf.test/"}
    assert Settings.from_env(keys).trace_url("t") == "https://lf.test/trace/t"
    named = Settings.from_env({**keys, "LANGFUSE_PROJECT_ID": "p1"})
    assert named.trace_url("t") == "https://lf.test/project/p1/traces/t"
    assert named.trace_url(None) is None
