"""What is to be reached, and whether it was."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import msgspec
from ops.bench.loads.deaf import ALONE, BESIDE
from ops.bench.loads.fan_out import LADDER_MS
from ops.bench.reading import Reading
from ops.bench.readings import Readings, Spread

__all__ = ["Target", "targets"]

_US, _FLOOR, _POLL, _PUBSUB = "tailrace", "floor", "poll", "pubsub"
_AT_ONCE_MIB = 32  # what 100 replays of 450 MB together may hold: two chunks for each, and room


class Target(msgspec.Struct, frozen=True):
    """One line of the table."""

    load: str
    what: str
    wanted: str
    figure: str
    reached: bool


def targets(readings: Readings) -> list[Target]:
    """The targets whose figures were measured."""
    found = [
        *_spread(readings),
        *_fan_out(readings),
        *_idle_and_churn(readings),
        *_replay(readings),
        *_append(readings),
        *_whole_path(readings),
        *_growth(readings),
        *_deaf(readings),
    ]
    return [target for target in found if target is not None]


Maybe = Iterator[Target | None]


def _spread(readings: Readings) -> Maybe:
    for case in ("500 events/s", "1,000 events/s"):
        for name, factor in (("p50_ms", 1.25), ("p99_ms", 1.5)):
            ratio = readings.ratio("a", case, name, _US, _FLOOR)
            yield _at_most("a", f"{case}: {name[:3]} over the floor's", ratio, factor, "×")
        cpu = readings.ratio("a", case, "server_cpu_us_per_frame", _US, _FLOOR)
        yield _at_most("a", f"{case}: API CPU per delivered event over the floor's", cpu, 2, "×")
        poll = readings.ratio("a", case, "p50_ms", _POLL, _US)
        yield _at_least("a", f"{case}: p50 of the 500 ms poll over ours", poll, 100, "×")


def _fan_out(readings: Readings) -> Maybe:
    case = "1,000 readers × 100 events/s"
    frames = readings.value("b", case, _US, "frames_per_s")
    if frames is None:
        return
    whole = readings.none("b", case, _US, "missing", "holes", "doubles")
    yield Target("b", case, "all delivered", f"{frames} frames/s, {'all' if whole else 'not all'}", whole)
    yield _at_most(
        "b", f"{case}: p99 over the floor's", readings.ratio("b", case, "p99_ms", _US, _FLOOR), 2, "×"
    )
    ours, floors, theirs = (_best(readings, system) for system in (_US, _FLOOR, _PUBSUB))
    if ours and theirs:
        what = f"frames/s below a p99 of {LADDER_MS:.0f} ms ({ours:,.0f}), over pub/sub's ({theirs:,.0f})"
        yield _at_least("b", what, Spread.of([ours / theirs]), 20, "×")
    if ours and floors:
        yield Target(
            "b", f"the same, over the floor's ({floors:,.0f})", "stated", f"{ours / floors:.2f}×", True
        )


def _best(readings: Readings, system: str) -> float | None:
    """Frames a second, at most, before too many of them come late, or one is missing."""

    def whole(one: Reading) -> bool:
        return one.values["p99_ms"] <= LADDER_MS and not one.values["missing"]

    return readings.best("b", system, "frames_per_s", where=whole)


def _idle_and_churn(readings: Readings) -> Maybe:
    held = readings.value("c", "idle streams", _US, "kib_per_stream")
    yield _at_most("c", "private memory per idle stream", held, 14, " KiB")
    yield _at_least(
        "c", "streams in one process", readings.value("c", "idle streams", _US, "streams"), 10_000, ""
    )
    yield _at_most("d", "p99 of the others", readings.value("d", "200 joins/s", _US, "p99_ms"), 20, " ms")


def _replay(readings: Readings) -> Maybe:
    one, many = "one reader", "100 readers at once"
    yield _at_least("e", "events/s to one reader", readings.value("e", one, _US, "events_per_s"), 60_000, "")
    yield _at_most("e", "first byte", readings.value("e", one, _US, "first_byte_ms"), 20, " ms")
    grown = readings.value("e", many, _US, "memory_grown_mib")
    yield _at_most("e", "memory that 100 replays at once add", grown, _AT_ONCE_MIB, " MiB")


def _append(readings: Readings) -> Maybe:
    group, single = "1 × emitter", "1 × one insert at a time"
    found = readings.value("f", group, _US, "events_per_s")
    yield _at_least("f", "events/s from one run", found, 15_000, "")
    alone = readings.value("f", single, _US, "events_per_s")
    if found and alone:
        yield _at_least("f", "over one insert at a time", Spread.of([found.median / alone.median]), 5, "×")
    for name in ("oplog", "document", "storage", "indexes"):
        weight = readings.value("f", group, _US, f"{name}_bytes")
        if weight:
            yield Target("f", f"{name}, bytes per event", "stated", str(weight), True)


def _whole_path(readings: Readings) -> Maybe:
    for case, _ in readings.cases("g"):
        for name, what, most, unit in (
            ("p50_ms", "emit to client, p50", 5, " ms"),
            ("p99_ms", "emit to client, p99", 30, " ms"),
            ("longest_run_beyond_pace_percent", "longest run beyond its own pace", 3, " %"),
            ("post_to_agent_start_p50_ms", "POST to `agent_start`, p50", 60, " ms"),
            ("first_token_beyond_model_p50_ms", "first token beyond the model's delay, p50", 20, " ms"),
            ("private_mib_per_run", "private memory per run", 25, " MB"),
        ):
            figure = readings.value("g", case, _US, name)
            yield _at_most("g", f"{case}: {what}", figure, most, unit)
            floor = readings.value("g", case, _FLOOR, name)
            if floor:
                yield Target("g", f"{case}: the floor's {what}", "stated", f"{floor}{unit}", True)
        for name, factor in (("p50_ms", 1.25), ("p99_ms", 1.5)):
            ratio = readings.ratio("g", case, name, _US, _FLOOR)
            yield _at_most("g", f"{case}: emit to client, {name[:3]} over the floor's", ratio, factor, "×")


def _growth(readings: Readings) -> Maybe:
    series = (("streams", (100, 1_000, 5_000)), ("stored events", (10_000, 1_000_000, 10_000_000)))
    for noun, sizes in series:
        for smaller, larger in itertools.pairwise(sizes):
            for name, label in (("p50_ms", "p50"), ("server_cpu_us_per_frame", "API CPU per event")):
                before = readings.value("h", f"{smaller:,} {noun}", _US, name)
                after = readings.value("h", f"{larger:,} {noun}", _US, name)
                if before and after:
                    tenfolds = math.log10(larger / smaller)
                    grown = 100 * ((after.median / before.median) ** (1 / tenfolds) - 1)
                    what = f"{label}, growth per ten-fold, {smaller:,} to {larger:,} {noun}"
                    yield _at_most("h", what, Spread.of([grown]), 20, " %")


def _deaf(readings: Readings) -> Maybe:
    alone, beside = readings.value("i", ALONE, _US, "p99_ms"), readings.value("i", BESIDE, _US, "p99_ms")
    if alone and beside:
        more = Spread.of([100 * (beside.median / alone.median - 1)])
        yield _at_most("i", "p99 beside 200 readers that take nothing, over alone", more, 20, " %")
    grown = readings.value("i", BESIDE, _US, "memory_grown_mib")
    yield _at_most("i", "memory that they add", grown, 100, " MiB")


def _at_most(load: str, what: str, found: Spread | None, most: float, unit: str) -> Target | None:
    if found is None:
        return None
    return Target(load, what, f"≤ {most:,}{unit}", f"{found}{unit}", found.median <= most)


def _at_least(load: str, what: str, found: Spread | None, least: float, unit: str) -> Target | None:
    if found is None:
        return None
    return Target(load, what, f"≥ {least:,}{unit}", f"{found}{unit}", found.median >= least)
