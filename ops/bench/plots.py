"""Plots as SVG: bars on a logarithmic scale, for figures that lie orders of magnitude apart."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape

from ops.bench.readings import Readings, Spread
from ops.bench.system import SYSTEMS

__all__ = ["bars", "plots"]

_WIDTH, _LABEL, _ROW, _TOP = 760, 250, 22, 40  # pixels
_COLOURS = ("#2563eb", "#94a3b8")
_ROOM = 120  # behind the longest bar, for its figure

Row = tuple[str, Sequence[Spread]]


def plots(readings: Readings) -> Mapping[str, str]:
    """The plots for which there are readings, by name."""
    both = ("p50_ms", "p99_ms")
    spread, fan_out = "1,000 events/s", "1,000 readers × 20 events/s"
    wanted: dict[str, tuple[str, str, tuple[str, ...], str]] = {
        "spread": ("a", spread, both, f"1,000 streams, {spread}: latency, ms"),
        "fan-out": ("b", fan_out, both, f"{fan_out}: latency, ms"),
        "replay": ("e", "one reader", ("events_per_s",), "Replay to one reader, events/s"),
        "idle": ("c", "idle streams", ("kib_per_stream",), "Private memory per idle stream, KiB"),
    }
    found: dict[str, str] = {}
    for name, (load, case, figures, title) in wanted.items():
        rows = _rows(readings, load, case, figures)
        if rows:
            found[name] = bars(title, [figure.rpartition("_")[0] for figure in figures], rows)
    return found


def _rows(readings: Readings, load: str, case: str, figures: Sequence[str]) -> list[Row]:
    rows: list[Row] = []
    for system in SYSTEMS:
        values = [readings.value(load, case, system.name, figure) for figure in figures]
        shown = [value for value in values if value is not None and value.median > 0]
        if len(shown) == len(figures):
            rows.append((system.label, shown))
    return rows


def bars(title: str, names: Sequence[str], rows: Sequence[Row]) -> str:
    """Horizontal bars, one for each name in each row; each says its figure."""
    figures = [value for _, values in rows for value in values]
    low = 10.0 ** math.floor(math.log10(min(value.median for value in figures) / 2))
    high = max(max(value.median, value.most) for value in figures)
    scale = (_WIDTH - _LABEL - _ROOM) / math.log10(high / low)
    parts = [_text(10, 20, title, bold=True), _legend(names) if len(names) > 1 else ""]
    y = _TOP
    for label, values in rows:
        parts.append(_text(10, y + _ROW * len(values) / 2 + 4, label))
        for nth, value in enumerate(values):
            length = scale * math.log10(value.median / low)
            parts.append(_bar(y, length, _COLOURS[nth]))
            parts.append(_text(_LABEL + length + 8, y + 14, str(value)))
            y += _ROW
        y += 8
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{y + 6}" '
        f'font-family="system-ui, sans-serif" font-size="12"><rect width="100%" height="100%" fill="white"/>'
        + "".join(parts)
        + "</svg>\n"
    )


def _legend(names: Sequence[str]) -> str:
    return "".join(
        _text(_WIDTH - 120 + 55 * nth, 20, f"■ {name}", colour=_COLOURS[nth])
        for nth, name in enumerate(names)
    )


def _bar(y: float, length: float, colour: str) -> str:
    return (
        f'<rect x="{_LABEL}" y="{y + 2}" width="{max(1.0, length):.1f}" height="{_ROW - 6}" fill="{colour}"/>'
    )


def _text(x: float, y: float, text: str, *, bold: bool = False, colour: str = "#0f172a") -> str:
    weight = ' font-weight="bold"' if bold else ""
    return f'<text x="{x:.0f}" y="{y:.0f}" fill="{colour}"{weight}>{escape(text)}</text>'
