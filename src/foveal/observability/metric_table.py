"""A catalogue as live cells, and the collector that hands them to prometheus_client when somebody scrapes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from foveal.observability.cells import CounterCell, HistogramCell
from foveal.observability.metric_spec import MetricSpec

__all__ = ["MetricTable", "Snapshot"]

Snapshot = Mapping[str, float | Mapping[str, float]]
"""Metric name as in the catalogue -> value now, or for a metric with one label: label value -> value now."""


class MetricTable(Collector):
    """Cells are made on first use and kept: bind one, then update it without a lookup.

    Not thread-safe: updates and scrapes belong to one event loop. `read_snapshot` gives the values of all metrics of source
    "snapshot"; it is called on each scrape and must be cheap. `fixed` are the values of the labels every series begins with.
    """

    def __init__(
        self, specs: Sequence[MetricSpec], read_snapshot: Callable[[], Snapshot], fixed: tuple[str, ...] = ()
    ) -> None:
        self._specs = {spec.name: spec for spec in specs}
        self._read = read_snapshot
        self._fixed = fixed
        self._counters: dict[str, dict[tuple[str, ...], CounterCell]] = {}
        self._histograms: dict[str, dict[tuple[str, ...], HistogramCell]] = {}
        self._cells: list[HistogramCell] = []
        self._turn = 0
        for spec in specs:
            if spec.source == "request":
                if spec.kind == "histogram":
                    self._histograms[spec.name] = {}
                else:
                    self._counters[spec.name] = {}
                if len(spec.label_names) == len(fixed):
                    # A series that exists from the start: a rate over it is 0 instead of absent.
                    self._cell(spec.name)

    def counter(self, name: str, *labels: str) -> CounterCell:
        """Raises KeyError for an unknown name, ValueError for the wrong number of label values."""
        series = self._counters[name]
        cell = series.get(labels)
        if cell is None:
            self._check(name, labels)
            cell = series[labels] = CounterCell()
        return cell

    def histogram(self, name: str, *labels: str) -> HistogramCell:
        """Raises KeyError for an unknown name, ValueError for the wrong number of label values."""
        series = self._histograms[name]
        cell = series.get(labels)
        if cell is None:
            self._check(name, labels)
            cell = series[labels] = HistogramCell(self._specs[name].buckets)
            self._cells.append(cell)
        return cell

    def settle_next(self) -> None:
        """Sort the pending values of one histogram into its buckets; the next call takes the next one.

        All at once would hold up the event loop for a millisecond.
        """
        if self._cells:
            self._turn = (self._turn + 1) % len(self._cells)
            self._cells[self._turn].settle()

    @property
    def num_pending(self) -> int:
        """Values not yet in buckets, over all histograms."""
        return sum(len(cell.pending) for cell in self._cells)

    def describe(self) -> Iterable[Metric]:
        return [_family(spec) for spec in self._specs.values()]

    def collect(self) -> Iterable[Metric]:
        values = self._read()
        for name, spec in self._specs.items():
            family = _family(spec)
            if spec.source == "snapshot":
                self._add_snapshot(family, values[name])
            elif isinstance(family, HistogramMetricFamily):
                for labels, histogram in self._histograms[name].items():
                    family.add_metric([*self._fixed, *labels], histogram.cumulated(), histogram.sum)
            elif isinstance(family, CounterMetricFamily):
                for labels, counter in self._counters[name].items():
                    family.add_metric([*self._fixed, *labels], counter.value)
            yield family

    def _add_snapshot(self, family: Metric, value: float | Mapping[str, float]) -> None:
        assert isinstance(family, CounterMetricFamily | GaugeMetricFamily)
        if isinstance(value, Mapping):
            for label, one in value.items():
                family.add_metric([*self._fixed, label], one)
        else:
            family.add_metric(list(self._fixed), value)

    def _cell(self, name: str) -> CounterCell | HistogramCell:
        return self.histogram(name) if name in self._histograms else self.counter(name)

    def _check(self, name: str, labels: tuple[str, ...]) -> None:
        names = self._specs[name].label_names[len(self._fixed) :]
        if len(labels) != len(names):
            raise ValueError(f"{name} has the labels {names}; got the values {labels}")


def _family(spec: MetricSpec) -> Metric:
    labels = list(spec.label_names)
    if spec.kind == "counter":
        # A counter read from an engine process shows that process's own total: its restart is a reset.
        return CounterMetricFamily(spec.name.removesuffix("_total"), spec.help, labels=labels)
    if spec.kind == "histogram":
        return HistogramMetricFamily(spec.name, spec.help, labels=labels)
    return GaugeMetricFamily(spec.name, spec.help, labels=labels)
