"""The catalogue, the objects made from it, the page generated from it, and logs."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from prometheus_client.parser import text_string_to_metric_families

from foveal.observability.catalogue import CATALOGUE, ENGINE_CATALOGUE, SLA_EDGES_S, MetricSpec, metric_spec
from foveal.observability.logs import configure_logging, get_logger
from foveal.observability.metrics import Metrics
from foveal.observability.metrics_page import render_metrics_page

SNAPSHOT = {spec.name: float(k) for k, spec in enumerate(ENGINE_CATALOGUE) if spec.source == "snapshot"}


@pytest.fixture
def metrics() -> Metrics:
    return Metrics("m", lambda: SNAPSHOT)


def test_names_are_unique_and_prometheus_safe() -> None:
    names = [spec.name for spec in CATALOGUE]
    assert len(set(names)) == len(names)
    assert all(name.startswith("foveal_") and name.replace("_", "").isalnum() for name in names)


def test_latency_histograms_have_an_edge_on_every_class_deadline() -> None:
    for spec in CATALOGUE:
        if spec.kind == "histogram" and spec.unit == "seconds":
            assert set(SLA_EDGES_S) <= set(spec.buckets), spec.name


@pytest.mark.parametrize(
    ("name", "kind", "buckets"),
    [
        ("foveal_x", "counter", ()),
        ("foveal_x_total", "gauge", ()),
        ("foveal_x", "histogram", ()),
        ("foveal_x", "histogram", (2, 1)),
    ],
)
def test_a_spec_that_contradicts_itself_is_refused(name: str, kind: str, buckets: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="foveal_x"):
        MetricSpec(name, kind, "help", buckets=buckets)  # type: ignore[arg-type]


def test_every_catalogue_entry_is_exposed_with_its_type(metrics: Metrics) -> None:
    metrics.count("foveal_request_errors_total", "timeout")
    metrics.count("foveal_requests_finished_total", "stop")
    families = {family.name: family.type for family in text_string_to_metric_families(metrics.render().decode())}
    for spec in ENGINE_CATALOGUE:
        assert families[spec.name.removesuffix("_total")] == spec.kind, spec.name
    assert "process_resident_memory_bytes" in families


def test_engine_counters_are_read_at_scrape_time() -> None:
    values = dict(SNAPSHOT)
    metrics = Metrics("m", lambda: values)
    values["foveal_num_preemptions_total"] = 41.0
    assert metrics.value("foveal_num_preemptions_total") == 41.0


def test_two_registries_do_not_mix(metrics: Metrics) -> None:
    other = Metrics("m", lambda: SNAPSHOT)
    metrics.histogram("foveal_time_to_first_token_seconds").observe(0.2)
    assert metrics.value("foveal_time_to_first_token_seconds_count") == 1
    assert other.value("foveal_time_to_first_token_seconds_count") == 0


def test_an_unknown_metric_name_is_an_error(metrics: Metrics) -> None:
    with pytest.raises(KeyError):
        metrics.count("foveal_nothing_total")
    with pytest.raises(KeyError):
        metric_spec("foveal_nothing")


def test_the_metrics_page_is_up_to_date() -> None:
    page = Path(__file__).parents[3] / "docs" / "reference" / "metrics.md"
    assert page.read_text() == render_metrics_page(), "run python -m foveal.observability.metrics_page"


@pytest.fixture
def log_stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield io.StringIO()
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def test_json_logs_are_one_object_per_line_also_for_the_standard_library(log_stream: io.StringIO) -> None:
    configure_logging("info", "json", log_stream)
    get_logger("foveal.x").info("hello", tokens=3)
    logging.getLogger("uvicorn.error").warning("plain %d", 7)
    get_logger("foveal.x").debug("too quiet")
    first, second = [json.loads(line) for line in log_stream.getvalue().splitlines()]
    assert (first["event"], first["tokens"], first["level"], first["logger"]) == ("hello", 3, "info", "foveal.x")
    assert (second["event"], second["level"]) == ("plain 7", "warning")


def test_text_logs_are_readable(log_stream: io.StringIO) -> None:
    configure_logging("info", "text", log_stream)
    get_logger("foveal.x").info("hello", tokens=3)
    assert "hello" in log_stream.getvalue()
    assert "tokens=3" in log_stream.getvalue()


def test_an_unknown_log_level_is_refused() -> None:
    with pytest.raises(ValueError, match="it must be debug"):
        configure_logging("loud")
