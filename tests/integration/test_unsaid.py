"""What was said stays out of the logs, also when MongoDB refuses it."""

from __future__ import annotations

import logging

import pytest
from pymongo.errors import BulkWriteError

from tailrace.eventlog import EventLog
from tailrace.events import Draft
from tailrace.mongo import Database
from tailrace.writer import Writer


async def _mine() -> bool:
    return True


async def test_a_refused_event_is_not_shown_by_its_error(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await database.command("collMod", "events", validator={"event_type": {"$ne": "custom"}})
    log = EventLog(database, retention_seconds=3600)
    said = Draft(event_type="custom", data={"value": "Zanzibar"})
    writer = Writer(log, "s1", run_id="r1", attempt=1, owns=_mine)
    with pytest.raises(BulkWriteError) as refused:
        await writer.append([said])
    (found,) = refused.value.details["writeErrors"]
    assert found["code"] == 121
    try:
        raise refused.value
    except BulkWriteError:
        logging.getLogger("tailrace").exception("events were refused")
    assert "failed validation" in caplog.text
    assert "Zanzibar" not in caplog.text + str(refused.value)
