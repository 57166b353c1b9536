"""An archive that falls behind is seen: by the doctor, by the figures, and until a pass goes through."""

from __future__ import annotations

import asyncio
import math
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from tests.integration.worker.scene import Scene

from tailrace.archive.passes import BEHIND_SECONDS, Passes
from tailrace.cli import main
from tailrace.doctor import Finding
from tailrace.doctor.archive import checks
from tailrace.mongo import Database, connect
from tailrace.settings import Settings


@pytest.fixture
def settings(settings: Settings, tmp_path: Path) -> Settings:
    return msgspec.structs.replace(settings, archive_url=f"file://{tmp_path}/archive")


async def findings(settings: Settings, database: Database) -> dict[str, Finding]:
    return {finding.check: finding for check in checks(settings, database) for finding in await check()}


async def test_what_expires_before_it_is_archived_is_found(settings: Settings, database: Database) -> None:
    await Scene(settings, database).perform("hello", retention_seconds=3_600.0)
    found = await findings(settings, database)
    assert (found["archive expiry"].level, found["archive"].level) == ("warning", "warning")
    assert found["archive expiry"].saw.startswith("1 sessions")
    assert "never" in found["archive"].saw

    later = datetime.now(UTC) + timedelta(days=2)
    await database["events"].update_many({}, {"$set": {"expires_at": later}})
    assert (await findings(settings, database))["archive expiry"].level == "ok"


async def test_what_is_archived_may_expire(settings: Settings, database: Database) -> None:
    events = await Scene(settings, database).perform("hello", retention_seconds=3_600.0)
    await database["sessions"].update_one({"_id": "s1"}, {"$set": {"archived_seq": events[-1].seq}})
    assert (await findings(settings, database))["archive expiry"].level == "ok"


async def test_without_an_archive_nobody_asks(settings: Settings, database: Database) -> None:
    assert checks(msgspec.structs.replace(settings, archive_url=None), database) == []


async def test_the_newest_pass_counts_and_one_long_ago_is_a_warning(
    settings: Settings, database: Database
) -> None:
    passes = Passes(database)
    assert math.isinf(await passes.age())
    await passes.went_through(time.time() - BEHIND_SECONDS - 60)
    found = (await findings(settings, database))["archive"]
    assert (found.level, "6.0 h" in found.saw) == ("warning", True)
    await passes.went_through(time.time())
    await passes.went_through(time.time() - 2 * BEHIND_SECONDS)
    assert await passes.age() < BEHIND_SECONDS


def test_a_pass_that_left_a_session_does_not_count(settings: Settings, tmp_path: Path) -> None:
    async def prepared() -> None:
        async with connect(settings) as database:
            await Scene(settings, database).perform("hello", retention_seconds=0.0)

    async def age() -> float:
        async with connect(settings) as database:
            return await Passes(database).age()

    asyncio.run(prepared())
    (tmp_path / "archive").write_text("a file where the directory should be")
    command, environ = ["archive", "--older-than", "0s"], settings.to_env()
    assert CliRunner().invoke(main, command, env=environ).exit_code == 1
    assert math.isinf(asyncio.run(age()))
    (tmp_path / "archive").unlink()
    assert CliRunner().invoke(main, command, env=environ).exit_code == 0
    assert asyncio.run(age()) < 600
