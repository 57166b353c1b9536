"""The loads, by their letters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from ops.bench.loads.appending import appending
from ops.bench.loads.churn import churn
from ops.bench.loads.deaf import deaf
from ops.bench.loads.fan_out import fan_out
from ops.bench.loads.growth import growth
from ops.bench.loads.idle import idle
from ops.bench.loads.replay import replay
from ops.bench.loads.spread import spread
from ops.bench.loads.whole_path import whole_path
from ops.bench.reading import Reading
from ops.bench.run import Run

__all__ = ["LOADS"]

LOADS: Mapping[str, Callable[[Run], Iterator[Reading]]] = {
    "a": spread,
    "b": fan_out,
    "c": idle,
    "d": churn,
    "e": replay,
    "f": appending,
    "g": whole_path,
    "h": growth,
    "i": deaf,
}
