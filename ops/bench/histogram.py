"""A histogram of durations, as the load generator counts them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import msgspec

__all__ = ["Histogram"]


class Histogram(msgspec.Struct, frozen=True, kw_only=True):
    """Counts of durations in nanoseconds, in buckets 1.6 % wide, so that those of several rounds add up."""

    count: int = 0
    sum: int = 0  # ns
    max: int = 0  # ns
    buckets: tuple[tuple[int, int], ...] = ()  # upper bound in ns, count; ascending

    @classmethod
    def of(cls, seconds: Iterable[float]) -> Histogram:
        """The histogram of these durations, each in a bucket of its own."""
        counts = sorted(Counter(int(value * 1e9) for value in seconds).items())
        total = sum(count for _, count in counts)
        together = sum(value * count for value, count in counts)
        return cls(count=total, sum=together, max=counts[-1][0] if counts else 0, buckets=tuple(counts))

    def ms(self, percent: float) -> float:
        """The percentile in milliseconds: the upper bound of its bucket; NaN of nothing."""
        rank = self.count * percent / 100
        seen = 0
        for upper, count in self.buckets:
            seen += count
            if seen >= rank:
                return min(upper, self.max) / 1e6
        return float("nan")

    @staticmethod
    def together(parts: Iterable[Histogram]) -> Histogram:
        """One histogram of all that `parts` counted."""
        counts: Counter[int] = Counter()
        total = nanoseconds = longest = 0
        for part in parts:
            counts.update(dict(part.buckets))
            total += part.count
            nanoseconds += part.sum
            longest = max(longest, part.max)
        return Histogram(count=total, sum=nanoseconds, max=longest, buckets=tuple(sorted(counts.items())))
