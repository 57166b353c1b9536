"""What the tests of the parts around the log share."""

from __future__ import annotations

import pytest

from tailrace.eventlog import EventLog
from tailrace.mongo import Database


@pytest.fixture
def log(database: Database) -> EventLog:
    """The test's event log; what it stores expires in an hour."""
    return EventLog(database, retention_seconds=3600)
