"""What was counted, in the words of Prometheus: text, or OpenMetrics where it is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric as Family
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from tailrace.metrics import Counter, Gauge, Histogram, Metric

__all__ = ["Exposition"]


class Exposition:
    """The metrics of one process, or of those that report to it.

    `gauges` gives what is true when it is asked; with `process` the process's own memory, time and open files
    are shown as well.
    """

    def __init__(
        self,
        metrics: Iterable[Metric],
        gauges: Callable[[], Iterable[tuple[Gauge, dict[str, float]]]] = lambda: (),
        *,
        process: bool,
    ) -> None:
        self._registry = CollectorRegistry()
        self._registry.register(_Collected(tuple(metrics), gauges))
        if process:
            ProcessCollector(registry=self._registry)

    def shown(self, accept: str) -> tuple[bytes, str]:
        """The body for a request with this `Accept` header, and its content type."""
        encode, content_type = choose_encoder(accept)
        return encode(self._registry), content_type


class _Collected(Collector):
    def __init__(
        self,
        metrics: tuple[Metric, ...],
        gauges: Callable[[], Iterable[tuple[Gauge, dict[str, float]]]],
    ) -> None:
        self._metrics = metrics
        self._gauges = gauges

    def describe(self) -> Iterable[Family]:
        return ()  # else the registry would collect once when this is registered

    def collect(self) -> Iterator[Family]:
        for metric in self._metrics:
            yield _counter(metric) if isinstance(metric, Counter) else _histogram(metric)
        for gauge, values in self._gauges():
            yield _gauge(gauge, values)


def _counter(metric: Counter) -> Family:
    family = CounterMetricFamily(metric.name, metric.help, labels=metric.labels)
    for labels, value in metric.values.items():
        family.add_metric(labels, value)
    return family


def _histogram(metric: Histogram) -> Family:
    bounds = [*(str(float(bound)) for bound in metric.bounds), "+Inf"]
    buckets = list(zip(bounds, accumulate(metric.counts), strict=True))
    return HistogramMetricFamily(metric.name, metric.help, buckets=buckets, sum_value=metric.sum)


def _gauge(gauge: Gauge, values: dict[str, float]) -> Family:
    family = GaugeMetricFamily(gauge.name, gauge.help, labels=[gauge.label] if gauge.label else [])
    for label, value in values.items():
        family.add_metric([label] if gauge.label else [], value)
    return family
