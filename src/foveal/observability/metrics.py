"""The engine server's metrics: its catalogue as live cells of one model, on one registry."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from foveal.observability.cells import HistogramCell
from foveal.observability.engine_catalogue import ENGINE_CATALOGUE
from foveal.observability.metric_spec import MODEL_LABEL
from foveal.observability.metric_table import MetricTable, Snapshot

__all__ = ["MODEL_LABEL", "Metrics", "Snapshot"]


class Metrics:
    """A registry of its own, so that two servers in one process (as in tests) never mix. Lives on one event loop.

    `read_snapshot` returns values for all metrics of source "snapshot". It is called on each scrape and must be cheap.
    """

    def __init__(self, model_name: str, read_snapshot: Callable[[], Snapshot]) -> None:
        self.model_name = model_name
        self.registry = CollectorRegistry()
        self._table = MetricTable(ENGINE_CATALOGUE, read_snapshot, (model_name,))
        self.registry.register(self._table)
        ProcessCollector(registry=self.registry)

    def histogram(self, name: str) -> HistogramCell:
        """Of this model: keep it and call `observe` on it. Raises KeyError for an unknown name."""
        return self._table.histogram(name)

    def count(self, name: str, *labels: str, by: float = 1) -> None:
        """Raises KeyError for an unknown name. Label values must come from a small fixed set."""
        self._table.counter(name, *labels).inc(by)

    def render(self) -> bytes:
        """Prometheus text format."""
        return generate_latest(self.registry)

    def value(self, name: str, **labels: str) -> float | None:
        """One sample, for tests and health pages; None if there is none yet."""
        return self.registry.get_sample_value(name, {MODEL_LABEL: self.model_name, **labels})
