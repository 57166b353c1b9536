"""Lines: what a terminal shows of a frame, and of an audit."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec

from tailrace.client.audit import SessionReport
from tailrace.client.frame import Frame

__all__ = ["answer_of", "harmless", "line_of", "report_of", "tool_line_of"]

_WIDTH = 100  # characters of an event's text in a line
# Everything below a space but tab and line feed, and C1: an agent's text must not move the cursor, set
# colours or rename the window.
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def answer_of(frame: Frame) -> str:
    """The text that `frame` adds to the answer; empty for all but a text delta."""
    if frame.type != "message_delta":
        return ""
    return harmless(str(frame.data.get("delta", "")))


def harmless(text: str) -> str:
    """`text` without control characters, but for tabs and line feeds."""
    return _CONTROL.sub("", text)


def tool_line_of(frame: Frame) -> str:
    """One line on a tool that begins or ends; empty for other frames."""
    name = _short(frame.data.get("name"))
    if frame.type == "tool_start":
        return f"→ {name} {_short(frame.data.get('input'))}"
    if frame.type == "tool_end":
        mark = "✗" if frame.data.get("status") == "error" else "✓"
        return f"{mark} {name} {_short(frame.data.get('output'))}"
    return ""


def line_of(frame: Frame) -> str:
    """One line on any frame: time, seq, type and a short text."""
    seconds = frame.data.get("timestamp")
    when = datetime.fromtimestamp(seconds).strftime("%H:%M:%S.%f")[:-3] if seconds else "-" * 12
    place = frame.seq if frame.seq is not None else "-"
    return f"{when} {place:>6} {frame.type:<18} {_text(frame)}".rstrip()


def report_of(report: SessionReport) -> str:
    """A line a run, a line a fault, and a last one that says whether all is well."""
    lines = [f"{'run':<32} {'events':>7}  {'status':<9} digest"] if report.runs else []
    for run in report.runs:
        lines.append(f"{_short(run.run_id):<32} {run.events:>7}  {_short(run.status):<9} {run.digest}")
        lines += [f"  ✗ {_short(fault)}" for fault in run.faults]
    lines += [f"✗ {fault}" for fault in report.faults]
    span = f"events {report.first_seq} to {report.last_seq}" if report.runs else "no events"
    verdict = "verified" if report.verified else "NOT verified"
    return "\n".join([*lines, f"Session {report.session_id}, {span}: {verdict}."])


def _text(frame: Frame) -> str:
    data = frame.data
    if frame.type in ("message_start", "message_complete"):
        return _short(f"{data.get('role')}: {data.get('content') or ''}")
    if frame.type == "tool_args_delta":
        return _short(f"{data.get('name') or ''} {data.get('delta')}")
    if frame.type in ("tool_start", "tool_end"):
        return tool_line_of(frame)
    named = _TEXT_OF.get(frame.type)
    if named is not None:
        return " ".join(_short(data[name]) for name in named if data.get(name) is not None)
    return _short(data.get("message") or data.get("value") or data.get("reason"))


_TEXT_OF = {
    "run_queued": ("agent",),
    "agent_start": ("agent", "model"),
    "agent_end": ("status",),
    "attempt_superseded": ("from_seq", "to_seq"),
    "message_delta": ("delta",),
    "reasoning_delta": ("delta",),
    "tool_progress": ("name", "progress"),
    "run_error": ("code", "message"),
    "finish": ("status",),
}


def _short(value: Any) -> str:
    """`value` in one line of at most `_WIDTH` characters, without control characters."""
    if value is None:
        return ""
    text = value if isinstance(value, str) else msgspec.json.encode(value).decode()
    line = harmless(text[: 4 * _WIDTH].replace("\n", "⏎").replace("\t", " "))
    return line if len(line) <= _WIDTH else line[: _WIDTH - 1] + "…"
