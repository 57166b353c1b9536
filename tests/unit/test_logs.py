"""Logs: fields beside the message, for a person and for a machine."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest

from tailrace.logs import configure
from tailrace.settings import Settings


@pytest.fixture(autouse=True)
def _root_as_before() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)


def test_console_shows_the_fields_after_the_message(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings())
    logging.getLogger("tailrace.x").info("run started", extra={"run_id": "r1", "attempt": 2})
    assert capsys.readouterr().err.endswith(" INFO    tailrace.x: run started run_id=r1 attempt=2\n")


def test_json_is_one_object_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings(log_format="json"))
    try:
        raise ValueError("two\nlines")
    except ValueError:
        logging.getLogger("tailrace.x").exception("run failed", extra={"run_id": "r1", "odd": {object}})
    (line,) = capsys.readouterr().err.splitlines()
    shown = json.loads(line)
    assert (shown["level"], shown["message"], shown["run_id"]) == ("error", "run failed", "r1")
    assert "two\nlines" in shown["exception"]


def test_requests_are_not_logged_at_info(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings())
    logging.getLogger("uvicorn.access").info("GET /")
    logging.getLogger("httpx").info("HTTP Request")
    assert capsys.readouterr().err == ""


def test_level_of_the_settings_counts(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings(log_level="error"))
    logging.getLogger("tailrace.x").warning("hardly worth it")
    assert capsys.readouterr().err == ""
