"""All readings of a run, and what they say together."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence

import msgspec
from ops.bench.reading import Reading

__all__ = ["Readings", "Spread"]


class Spread(msgspec.Struct, frozen=True):
    """What several rounds showed: the median, and from the least to the most."""

    median: float
    least: float
    most: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """The spread of at least one value."""
        return cls(statistics.median(values), min(values), max(values))

    def __str__(self) -> str:
        if self.least == self.most:
            return _figure(self.median)
        return f"{_figure(self.median)} ({_figure(self.least)}–{_figure(self.most)})"


def _figure(value: float) -> str:
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}"


class Readings:
    """The readings in the order in which they were taken."""

    def __init__(self, readings: Sequence[Reading]) -> None:
        self.all = readings

    def of(self, load: str, case: str, system: str) -> list[Reading]:
        """The rounds of one measurement."""
        chosen = (load, case, system)
        return [found for found in self.all if (found.load, found.case, found.system) == chosen]

    def cases(self, load: str) -> Iterator[tuple[str, list[str]]]:
        """The load's cases, and the systems that were measured in each."""
        cases: dict[str, dict[str, None]] = {}
        for found in self.all:
            if found.load == load:
                cases.setdefault(found.case, {})[found.system] = None
        return ((case, list(systems)) for case, systems in cases.items())

    def value(self, load: str, case: str, system: str, name: str) -> Spread | None:
        """A figure over all rounds; None where it was not measured."""
        values = [found.values[name] for found in self.of(load, case, system) if name in found.values]
        return Spread.of(values) if values else None

    def ratio(self, load: str, case: str, name: str, system: str, to: str) -> Spread | None:
        """A figure of `system` over that of `to`, round by round; None where one was not measured."""
        pairs = zip(self.of(load, case, system), self.of(load, case, to), strict=False)
        return _spread(one.values[name] / other.values[name] for one, other in pairs if other.values[name])

    def none(self, load: str, case: str, system: str, *names: str) -> bool:
        """Whether the sum of these figures is 0 in every round: nothing missing, nothing twice."""
        return not any(found.values.get(name) for found in self.of(load, case, system) for name in names)

    def best(self, load: str, system: str, name: str, *, where: Callable[[Reading], bool]) -> float | None:
        """The most that `system` showed of a figure, in any case that fulfils `where`."""
        found = [one for one in self.all if (one.load, one.system) == (load, system) and where(one)]
        return max((one.values[name] for one in found), default=None)


def _spread(values: Iterator[float]) -> Spread | None:
    found = list(values)
    return Spread.of(found) if found else None
