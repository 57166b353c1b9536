"""Logs: a static message and structured fields, for a person or for a machine."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from tailrace.settings import Settings

__all__ = ["bind", "bound", "configure"]

# What every record has; the rest came by `extra` and is a field.
_OWN = {*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName", "color_message"}

# What every line of this task, and of those that it starts, is about.
_about: ContextVar[Mapping[str, Any]] = ContextVar("about", default={})  # noqa: B039 - never changed

# What a user or an agent said may be in a message: it must not write lines of its own, nor steer a terminal.
_ESCAPES = {code: repr(chr(code))[1:-1] for code in (*range(0x20), *range(0x7F, 0xA0))}

# They tell of every request at info.
_TALKATIVE = ("uvicorn.access", "httpx", "httpx2", "httpcore", "httpcore2")


def configure(settings: Settings) -> None:
    """Log to stderr as the settings say; replaces what was configured before."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Json() if settings.log_format == "json" else _Console())
    logging.basicConfig(level=settings.log_level.upper(), handlers=[handler], force=True)
    for name in ("uvicorn", "uvicorn.error", *_TALKATIVE):
        logger = logging.getLogger(name)
        logger.handlers, logger.propagate = [], True
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.DEBUG if settings.log_level == "debug" else logging.WARNING)
    logging.getLogger("pymongo").setLevel(logging.WARNING)
    logging.captureWarnings(True)


def bind(**fields: Any) -> None:
    """Give these fields to every line that this task, and those it starts, will log; None is left out."""
    _about.set({**_about.get(), **{name: value for name, value in fields.items() if value is not None}})


@contextmanager
def bound(**fields: Any) -> Iterator[None]:
    """Like `bind`, for as long as the body runs."""
    before = _about.get()
    bind(**fields)
    try:
        yield
    finally:
        _about.set(before)


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    own = {name: value for name, value in record.__dict__.items() if name not in _OWN}
    return {**_about.get(), **own}


class _Console(logging.Formatter):
    """A line a record; a traceback is set in below it, so that no line of an error's text looks like one."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:
        fields = "".join(f" {name}={value}" for name, value in _fields(record).items())
        return (super().formatMessage(record) + fields).translate(_ESCAPES)

    def formatException(self, ei: Any) -> str:
        lines = super().formatException(ei).split("\n")
        return "\n".join(f"  {line}".translate(_ESCAPES) for line in lines)


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, Any] = {
            "timestamp": record.created,
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        # In ASCII, which carries lone surrogates and C1 controls too; msgspec refuses the former.
        return json.dumps(line, default=str)
