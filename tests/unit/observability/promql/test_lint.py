"""The lint accepts what means something and names what does not."""

from __future__ import annotations

import pytest

from foveal.observability.catalogue import CATALOGUE
from foveal.observability.promql.lint import lint
from foveal.observability.promql.parser import parse
from foveal.observability.promql.syntax import Binary, Literal, Selector
from foveal.observability.promql.tokens import PromqlError

TTFT = "foveal_gateway_time_to_first_token_seconds"


@pytest.mark.parametrize(
    "query",
    [
        f"histogram_quantile(0.95, sum by (le, model_name) (rate({TTFT}_bucket[5m])))",
        f'histogram_quantile(0.95, sum(rate({TTFT}_bucket{{model_name=~"$model"}}[$__rate_interval])) by (le))',
        f"sum(rate({TTFT}_sum[5m])) / sum(rate({TTFT}_count[5m]))",
        'sum by (tenant) (rate(foveal_gateway_requests_total{outcome!="success", job="gw"}[1h30m]))',
        "foveal_gateway_backend_up == 0 and on (backend) foveal_gateway_backend_in_flight > bool 0",
        "sum(deriv(foveal_gateway_queue_length[10m])) > 0",
        "max_over_time(sum(foveal_gateway_queue_length)[10m:1m])",
        "1 - process_resident_memory_bytes / 1e9 offset 5m",
        "topk(3, foveal_gateway_backend_in_flight) # the busiest",
    ],
)
def test_a_sound_query_passes(query: str) -> None:
    assert lint(query, CATALOGUE) == []


@pytest.mark.parametrize(
    ("query", "problem"),
    [
        ("foveal_gateway_nonsense", "not in the catalogue"),
        (f"rate({TTFT}[5m])", "not in the catalogue"),
        ("sum by (shop) (rate(foveal_gateway_requests_total[5m]))", "shop"),
        ('foveal_gateway_backend_up{model_name="x"}', "no label model_name"),
        ("rate(foveal_gateway_queue_length[5m])", "gauge"),
        ("foveal_gateway_requests_total > 5", "inside rate"),
        ("rate(foveal_gateway_requests_total)", "needs a range"),
        ("foveal_gateway_queue_length[5m]", "inside a function"),
        (f"histogram_quantile(0.9, sum by (model_name) (rate({TTFT}_bucket[5m])))", "keep le"),
        (f"histogram_quantile(0.9, sum(rate({TTFT}_bucket[5m])))", "keep le"),
        ("histogram_quantile(0.9, foveal_gateway_queue_length)", "_bucket"),
        ("sum(rate(foveal_gateway_requests_total[5m])", "found the end"),
        ("foveal_gateway_backend_up ==", "found the end"),
        ("ratte(foveal_gateway_requests_total[5m])", "ratte"),
        ('{job="x"}', "without a name"),
        ("foveal_gateway_backend_up{backend}", "matcher"),
        ("foveal_gateway_backend_up ~ 1", "cannot read"),
    ],
)
def test_an_unsound_query_is_named(query: str, problem: str) -> None:
    problems = lint(query, CATALOGUE)
    assert problems
    assert problem in " ".join(problems)


def test_operators_bind_as_in_prometheus() -> None:
    a, b, c = Selector("a"), Selector("b"), Selector("c")
    assert parse("a + b * c") == Binary("+", a, Binary("*", b, c))
    assert parse("a - b - c") == Binary("-", Binary("-", a, b), c)
    assert parse("a ^ b ^ c") == Binary("^", a, Binary("^", b, c))
    assert parse("a > 1 and b or c") == Binary("or", Binary("and", Binary(">", a, Literal("1")), b), c)


def test_a_range_follows_a_metric_only() -> None:
    with pytest.raises(PromqlError, match="subquery"):
        parse("sum(a)[5m]")
