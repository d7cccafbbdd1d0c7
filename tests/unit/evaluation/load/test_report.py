"""Metrics computed from hand-made records, to the digit."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.core.priority import Priority
from foveal.evaluation.load.record import RequestRecord
from foveal.evaluation.load.report import LatencySla, percentile, summarise

FIRST = RequestRecord(
    0, start_s=10.0, sent_s=10.0, end_s=11.1, text_s=(10.2, 10.3, 10.6, 11.0), prompt_tokens=100, completion_tokens=5,
    cached_tokens=40, priority=Priority.P0,
)  # fmt: skip
SECOND = RequestRecord(
    1, start_s=10.5, sent_s=10.6, end_s=12.0, text_s=(11.5,), prompt_tokens=50, completion_tokens=1,
    priority=Priority.P2,
)  # fmt: skip
FAILED = RequestRecord(2, start_s=12.0, sent_s=12.0, end_s=14.0, error="HTTP 503 overloaded", prompt_tokens=7)


def test_latencies_are_measured_from_when_a_request_was_due() -> None:
    report = summarise([FIRST, SECOND, FAILED])
    assert report.ttft.count == 2
    assert report.ttft.p50_ms == pytest.approx((200 + 1000) / 2)
    assert report.ttft.max_ms == pytest.approx(1000)
    assert report.e2e.mean_ms == pytest.approx((1100 + 1500) / 2)
    assert report.client_lag.max_ms == pytest.approx(100)


def test_time_per_output_token_spreads_the_stream_over_the_tokens_after_the_first() -> None:
    report = summarise([FIRST, SECOND])
    assert report.tpot.count == 1
    assert report.tpot.mean_ms == pytest.approx((11.0 - 10.2) / 4 * 1e3)


def test_inter_token_latency_is_the_gap_between_events() -> None:
    report = summarise([FIRST, SECOND])
    assert report.itl.count == 3
    assert report.itl.p50_ms == pytest.approx(300)
    assert report.itl.max_ms == pytest.approx(400)


def test_rates_cover_the_time_from_the_first_request_due_to_the_last_end() -> None:
    report = summarise([FIRST, SECOND, FAILED])
    assert report.duration_s == pytest.approx(4.0)
    assert report.requests_per_s == pytest.approx(2 / 4)
    assert report.output_tokens_per_s == pytest.approx(6 / 4)
    assert (report.prompt_tokens, report.cached_tokens, report.completion_tokens) == (150, 40, 6)


def test_errors_are_counted_by_kind() -> None:
    report = summarise([FIRST, FAILED, FAILED])
    assert report.errors == {"HTTP 503 overloaded": 2}
    assert (report.num_requests, report.num_ok) == (3, 1)


@pytest.mark.parametrize(
    ("sla", "num_good"),
    [
        (LatencySla(), 2),
        (LatencySla(ttft_ms=500), 1),
        (LatencySla(tpot_ms=150), 1),
        (LatencySla(e2e_ms=1200), 1),
        (LatencySla(ttft_ms=500, tpot_ms=150), 0),
    ],
)
def test_goodput_counts_complete_answers_within_every_limit(sla: LatencySla, num_good: int) -> None:
    report = summarise([FIRST, SECOND, FAILED], sla)
    assert report.good_fraction == pytest.approx(num_good / 3)
    assert report.goodput_per_s == pytest.approx(num_good / 4)


def test_peak_concurrency_counts_overlaps_only() -> None:
    def record(sent_s: float, end_s: float) -> RequestRecord:
        return RequestRecord(0, sent_s, sent_s, end_s)

    assert summarise([record(0, 1), record(1, 2), record(1.5, 3), record(1.6, 1.7)]).peak_concurrency == 3


def test_first_tokens_are_split_by_priority() -> None:
    by_priority = summarise([FIRST, SECOND, FAILED]).ttft_by_priority
    assert {name: values.p50_ms for name, values in by_priority.items()} == pytest.approx({"P0": 200, "P2": 1000})


def test_an_empty_run_gives_an_empty_report_that_is_json() -> None:
    report = summarise([])
    assert math.isnan(report.ttft.p50_ms)
    document = json.loads(json.dumps(report.as_dict(), allow_nan=False))
    assert document["ttft"]["p50_ms"] is None
    assert document["num_requests"] == 0


@given(st.lists(st.floats(0, 1e6), min_size=1), st.floats(0, 1))
def test_percentiles_are_numpys(values: list[float], q: float) -> None:
    assert percentile(sorted(values), q) == pytest.approx(float(np.quantile(values, q)), rel=1e-9, abs=1e-9)
