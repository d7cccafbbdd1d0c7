"""Our cells say exactly what prometheus_client's objects would say."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from foveal.observability.buckets import LATENCY_S
from foveal.observability.cells import CounterCell, HistogramCell
from foveal.observability.metric_spec import MetricSpec
from foveal.observability.metric_table import MetricTable

SPEC = MetricSpec("foveal_x_seconds", "histogram", "X.", "seconds", buckets=LATENCY_S)
VALUES = st.lists(st.floats(0, 1e4) | st.sampled_from(LATENCY_S), max_size=50)


def _page(table: MetricTable) -> str:
    registry = CollectorRegistry()
    registry.register(table)
    return generate_latest(registry).decode()


@given(VALUES)
def test_a_histogram_reads_as_prometheus_clients_own(values: list[float]) -> None:
    registry = CollectorRegistry()
    oracle = Histogram(SPEC.name, SPEC.help, ["model_name"], registry=registry, buckets=LATENCY_S).labels("m")
    table = MetricTable([SPEC], dict, ("m",))
    cell = table.histogram(SPEC.name)
    for value in values:
        oracle.observe(value)
        cell.observe(value)
    expected = [line for line in generate_latest(registry).decode().splitlines() if "_created" not in line]
    ours = _page(table).splitlines()
    assert [line for line in ours if "_sum" not in line] == [line for line in expected if "_sum" not in line]
    assert cell.sum == pytest.approx(sum(values))


def test_pending_values_count_before_they_are_sorted_and_stay_bounded() -> None:
    cell = HistogramCell((1.0, 2.0))
    for _ in range(5000):
        cell.observe(1.5)
    assert cell.count == 5000
    assert len(cell.pending) < 5000
    assert cell.cumulated() == [("1.0", 0), ("2.0", 5000), ("+Inf", 5000)]


def test_a_counter_adds_up() -> None:
    cell = CounterCell()
    cell.inc()
    cell.inc(2.5)
    assert cell.value == 3.5


def test_the_wrong_number_of_labels_is_an_error() -> None:
    table = MetricTable([MetricSpec("foveal_y_total", "counter", "Y.", labels=("a",), component="gateway")], dict)
    with pytest.raises(ValueError, match="labels"):
        table.counter("foveal_y_total")
