"""The catalogue as live prometheus_client objects, and a collector that reads the engine when Prometheus scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from foveal.observability.catalogue import CATALOGUE, MetricSpec

__all__ = ["MODEL_LABEL", "Metrics", "Snapshot"]

MODEL_LABEL = "model_name"

Snapshot = Mapping[str, float | Mapping[str, float]]
"""Metric name as in the catalogue -> value now, or for a metric with a label: label value -> value now."""


class Metrics:
    """A registry of its own, so that two servers in one process (as in tests) never mix.

    `read_snapshot` returns values for all metrics of source "snapshot". It is called on each scrape and must be cheap.
    """

    def __init__(self, model_name: str, read_snapshot: Callable[[], Snapshot]) -> None:
        self.model_name = model_name
        self.registry = CollectorRegistry()
        self._histograms: dict[str, Histogram] = {}
        self._counters: dict[str, Counter] = {}
        for spec in CATALOGUE:
            if spec.source == "request":
                self._register(spec)
        snapshot_specs = [spec for spec in CATALOGUE if spec.source == "snapshot"]
        self.registry.register(_SnapshotCollector(snapshot_specs, model_name, read_snapshot))
        ProcessCollector(registry=self.registry)

    def histogram(self, name: str) -> Histogram:
        """Bound to this model: keep it and call `observe` on it. Raises KeyError for an unknown name."""
        return self._histograms[name].labels(self.model_name)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Raises KeyError for an unknown name. Label values must come from a small fixed set."""
        self._counters[name].labels(self.model_name, *labels).inc(by)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """One sample, for tests and health pages; None if there is none yet."""
        return self.registry.get_sample_value(name, {MODEL_LABEL: self.model_name, **labels})

    def _register(self, spec: MetricSpec) -> None:
        labels = (MODEL_LABEL, *spec.labels)
        if spec.kind == "histogram":
            histogram = Histogram(spec.name, spec.help, labels, registry=self.registry, buckets=spec.buckets)
            self._histograms[spec.name] = histogram
            # A series that exists from the start: a rate over it is 0 instead of absent.
            histogram.labels(self.model_name)
        elif spec.kind == "counter":
            self._counters[spec.name] = Counter(spec.name, spec.help, labels, registry=self.registry)
        else:
            Gauge(spec.name, spec.help, labels, registry=self.registry)


class _SnapshotCollector(Collector):
    """Counters are exposed as counters with the engine's own totals: a restarted engine shows as a reset."""

    def __init__(self, specs: list[MetricSpec], model_name: str, read: Callable[[], Snapshot]) -> None:
        self._specs = specs
        self._model_name = model_name
        self._read = read

    def describe(self) -> Iterable[Metric]:
        return [self._family(spec) for spec in self._specs]

    def collect(self) -> Iterable[Metric]:
        values = self._read()
        for spec in self._specs:
            family = self._family(spec)
            value = values[spec.name]
            if isinstance(value, Mapping):
                for label, one in value.items():
                    family.add_metric([self._model_name, label], one)
            else:
                family.add_metric([self._model_name], value)
            yield family

    @staticmethod
    def _family(spec: MetricSpec) -> CounterMetricFamily | GaugeMetricFamily:
        if spec.kind == "counter":
            name = spec.name.removesuffix("_total")
            return CounterMetricFamily(name, spec.help, labels=[MODEL_LABEL, *spec.labels])
        return GaugeMetricFamily(spec.name, spec.help, labels=[MODEL_LABEL, *spec.labels])
