"""Logs: fields beside the message, for a person and for a machine."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Iterator

import pytest

from tailrace.logs import bind, bound, configure
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


HOSTILE = "gone\n12:00:00 ERROR   tailrace.x: forged\r\x1b[2J\x07\x7f\x9b31m"


def test_console_lets_no_text_write_a_line_or_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings())
    log = logging.getLogger("tailrace.x")
    log.warning("it said: %s", HOSTILE, extra={"error": HOSTILE})
    try:
        raise ValueError(HOSTILE)
    except ValueError:
        log.exception("run failed")
    shown = capsys.readouterr().err
    assert all(text == "\n" or text.isprintable() for text in shown)
    first, second, *traceback = shown.splitlines()
    escaped = r"gone\n12:00:00 ERROR   tailrace.x: forged\r\x1b[2J\x07\x7f\x9b31m"
    assert first.endswith(f" WARNING tailrace.x: it said: {escaped} error={escaped}")
    assert second.endswith(" ERROR   tailrace.x: run failed")
    assert traceback[0] == "  Traceback (most recent call last):"
    assert all(line.startswith("  ") for line in traceback)


def test_json_carries_what_utf_8_cannot(capsys: pytest.CaptureFixture[str]) -> None:
    configure(Settings(log_format="json"))
    logging.getLogger("tailrace.x").warning("it said: %s", "\ud800\x9b31m")
    shown = capsys.readouterr().err
    assert "\x9b" not in shown
    assert json.loads(shown)["message"] == "it said: \ud800\x9b31m"


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


async def test_lines_carry_what_their_task_is_about_and_no_other_does(
    capsys: pytest.CaptureFixture[str],
) -> None:
    configure(Settings(log_format="json"))
    log = logging.getLogger("tailrace.x")

    async def run(session_id: str) -> None:
        with bound(session_id=session_id, run_id="r1", trace_id=None):
            await asyncio.sleep(0)
            bind(attempt=2)
            log.info("one", extra={"run_id": "r2"})
        log.info("two")

    await asyncio.gather(run("s1"), run("s2"))
    about = [
        (line["message"], line.get("session_id"), line.get("run_id"), line.get("attempt"))
        for line in map(json.loads, capsys.readouterr().err.splitlines())
    ]
    assert sorted(about, key=str) == [
        ("one", "s1", "r2", 2),
        ("one", "s2", "r2", 2),
        ("two", None, None, None),
        ("two", None, None, None),
    ]
