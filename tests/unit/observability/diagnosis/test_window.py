"""Arithmetic over scrapes, with Prometheus's rules as the oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.core.errors import ConfigurationError
from foveal.observability.diagnosis.diagnose import diagnose
from foveal.observability.diagnosis.dialect import as_ours
from foveal.observability.diagnosis.page_source import PageSource
from foveal.observability.diagnosis.scrape import MetricsPageError, parse_page
from foveal.observability.diagnosis.window import Window
from support.provoked_traffic import EngineTraffic


def _window(*pages: str) -> Window:
    return Window([parse_page(page, 10.0 * number) for number, page in enumerate(pages)])


def _counter(*values: float) -> Window:
    return _window(*(f'# TYPE c_total counter\nc_total{{a="x"}} {value}\n' for value in values))


def test_a_restarted_counter_counts_from_zero() -> None:
    assert _counter(100, 130, 5, 7).increase("c_total") == 37


@given(st.lists(st.integers(0, 1000), min_size=1, max_size=20))
def test_a_steady_counter_increases_by_its_difference(steps: list[int]) -> None:
    values = [sum(steps[:end]) for end in range(len(steps) + 1)]
    assert _counter(*values).increase("c_total") == sum(steps)


def test_labels_select_and_the_rest_is_summed() -> None:
    page = (
        '# TYPE c_total counter\nc_total{{a="x",b="1"}} {0}\nc_total{{a="x",b="2"}} {0}\nc_total{{a="y",b="1"}} {1}\n'
    )
    window = _window(page.format(0, 0), page.format(4, 9))
    assert window.increase("c_total") == 17
    assert window.increase("c_total", a="x") == 8
    assert window.rate("c_total", a="y") == pytest.approx(0.9)
    assert window.values_of("c_total", "a") == ["x", "y"]


def test_what_is_not_there_is_nothing() -> None:
    window = _counter(1, 2)
    assert window.increase("other_total") == 0
    assert window.mean("other") is None
    assert window.quantile("other", 0.5) is None
    assert window.average("other") is None


def test_a_quantile_interpolates_within_its_bucket_as_prometheus_does() -> None:
    def page(counts: tuple[int, int, int]) -> str:
        edges = zip(("1.0", "2.0", "+Inf"), counts, strict=True)
        return "# TYPE h histogram\n" + "".join(f'h_bucket{{le="{le}"}} {count}\n' for le, count in edges)

    window = _window(page((5, 5, 5)), page((15, 25, 30)))
    assert window.quantile("h", 0.2) == pytest.approx(0.5)
    assert window.quantile("h", 0.6) == pytest.approx(1.5)
    assert window.quantile("h", 0.99) == 2.0, "beyond the last finite edge"


def test_gauges_are_averaged_over_the_scrapes() -> None:
    window = _window(*(f"# TYPE g gauge\ng {value}\n" for value in (1, 2, 6)))
    assert (window.mean("g"), window.highest("g"), window.latest("g")) == (3.0, 6.0, 6.0)


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ("vllm:kv_cache_usage_perc", "foveal_kv_cache_usage_perc"),
        ("vllm:gpu_cache_usage_perc", "foveal_kv_cache_usage_perc"),
        ("vllm:time_to_first_token_seconds_bucket", "foveal_time_to_first_token_seconds_bucket"),
        ("vllm:time_per_output_token_seconds_sum", "foveal_inter_token_latency_seconds_sum"),
        ("vllm:prefix_cache_queries_total", "foveal_prefix_cache_queries_total"),
        ("vllm:gpu_prefix_cache_hits_total", "foveal_prefix_cache_hits_total"),
        ("vllm:request_success_total", "foveal_requests_finished_total"),
        ("vllm:num_preemptions_total", "foveal_num_preemptions_total"),
        ("vllm:something_else", "vllm:something_else"),
        ("foveal_num_requests_running", "foveal_num_requests_running"),
    ],
)
def test_vllms_names_of_all_versions_read_as_ours(theirs: str, ours: str) -> None:
    assert as_ours(theirs) == ours


@pytest.mark.parametrize("usage", ["kv_cache_usage_perc", "gpu_cache_usage_perc"])
def test_kv_pressure_is_found_in_vllm_too(usage: str) -> None:
    engine = EngineTraffic()
    engine.gauge("kv_cache_usage_perc", 0.99)

    def as_vllm(page: str) -> str:
        return page.replace("foveal_kv_cache_usage_perc", f"vllm:{usage}").replace("foveal_num_", "vllm:num_")

    first = engine.page()
    engine.add("num_preemptions_total", 3)
    window = _window(as_vllm(first), as_vllm(engine.page()))
    assert [finding.code for finding in diagnose(window)] == ["kv_pressure"]


def test_a_page_that_is_no_metrics_page_is_an_error() -> None:
    with pytest.raises(MetricsPageError, match="Prometheus text format"):
        parse_page("<html>hello</html>", 0.0)


def test_an_address_gets_the_metrics_path() -> None:
    assert PageSource("localhost:8080").url == "http://localhost:8080/metrics"
    assert PageSource("http://localhost:8080/").url == "http://localhost:8080/metrics"
    assert PageSource("https://h/other/metrics").url == "https://h/other/metrics"
    with pytest.raises(ConfigurationError, match="no address"):
        PageSource("ftp://h")


def test_a_server_that_is_not_there_is_an_error_that_says_what_to_check() -> None:
    with pytest.raises(MetricsPageError, match="Is the server up"):
        PageSource("http://127.0.0.1:9", timeout_s=1.0).read()


def test_a_window_needs_two_scrapes() -> None:
    with pytest.raises(ValueError, match="two scrapes"):
        Window([parse_page("", 0.0)])
