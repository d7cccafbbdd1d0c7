from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.queueing.rate_meter import RateMeter


@given(st.floats(0.1, 1000.0), st.integers(1, 2000))
def test_a_steady_stream_is_measured_right_from_the_first_second(per_s: float, num_events: int) -> None:
    meter = RateMeter(10.0, 0.0)
    for number in range(num_events):
        meter.add(1.0, (number + 0.5) / per_s)
    assert meter.rate(num_events / per_s) == pytest.approx(per_s, rel=0.05, abs=0.06)


def test_what_is_long_past_is_forgotten() -> None:
    meter = RateMeter(10.0, 0.0)
    for second in range(100):
        meter.add(5.0, float(second))
    assert meter.rate(100.0) == pytest.approx(5.0, rel=0.1)
    assert meter.rate(200.0) < 0.001


def test_one_early_event_is_not_a_stream() -> None:
    meter = RateMeter(10.0, 0.0, settle_s=5.0)
    meter.add(1.0, 0.001)
    assert meter.rate(0.001) < 0.3


def test_nothing_yet_is_a_rate_of_zero() -> None:
    assert RateMeter(10.0, 0.0).rate(0.0) == 0.0
