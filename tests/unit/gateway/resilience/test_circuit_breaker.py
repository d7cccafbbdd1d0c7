from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.resilience.circuit_breaker import BreakerState, CircuitBreaker
from foveal.gateway.resilience.config import BreakerConfig
from foveal.gateway.resilience.outcome import Outcome

CONFIG = BreakerConfig(consecutive_failures=3, connect_weight=2, open_s=1.0, max_open_s=8.0, successes_to_close=2)


def opened(now_s: float = 0.0) -> CircuitBreaker:
    breaker = CircuitBreaker(CONFIG)
    for _ in range(3):
        breaker.record(Outcome.BROKEN, now_s)
    return breaker


def test_it_opens_after_failures_in_a_row() -> None:
    breaker = CircuitBreaker(CONFIG)
    for outcome in (Outcome.BROKEN, Outcome.TIMED_OUT, Outcome.SUCCESS, Outcome.BROKEN, Outcome.SERVER_ERROR):
        breaker.record(outcome, 0.0)
    assert breaker.state(0.0) is BreakerState.CLOSED
    breaker.record(Outcome.BAD_ANSWER, 0.0)
    assert breaker.state(0.0) is BreakerState.OPEN


def test_a_refused_connection_weighs_more() -> None:
    breaker = CircuitBreaker(CONFIG)
    breaker.record(Outcome.CONNECT_FAILED, 0.0)
    breaker.record(Outcome.CONNECT_FAILED, 0.0)
    assert breaker.state(0.0) is BreakerState.OPEN


def test_it_opens_when_half_of_the_requests_fail() -> None:
    breaker = CircuitBreaker(BreakerConfig(failure_ratio=0.5, min_requests=10, window=20))
    for _ in range(4):
        breaker.record(Outcome.SUCCESS, 0.0)
        breaker.record(Outcome.SERVER_ERROR, 0.0)
    assert breaker.state(0.0) is BreakerState.CLOSED
    breaker.record(Outcome.SUCCESS, 0.0)
    breaker.record(Outcome.SERVER_ERROR, 0.0)
    assert breaker.state(0.0) is BreakerState.OPEN


@pytest.mark.parametrize("outcome", [Outcome.CLIENT_GONE, Outcome.OVERLOADED])
def test_outcomes_that_say_nothing_about_health_change_nothing(outcome: Outcome) -> None:
    breaker = CircuitBreaker(CONFIG)
    for _ in range(100):
        breaker.record(outcome, 0.0)
    assert breaker.state(0.0) is BreakerState.CLOSED


def test_it_lets_a_request_try_after_a_while_and_closes_after_successes() -> None:
    breaker = opened()
    assert breaker.state(0.99) is BreakerState.OPEN
    assert breaker.state(1.0) is BreakerState.HALF_OPEN
    breaker.record(Outcome.SUCCESS, 1.0)
    assert breaker.state(1.0) is BreakerState.HALF_OPEN
    breaker.record(Outcome.SUCCESS, 1.1)
    assert breaker.state(1.1) is BreakerState.CLOSED


def test_each_failed_try_doubles_the_time_up_to_the_limit() -> None:
    breaker = opened()
    now_s, times = 0.0, []
    for _ in range(6):
        half_open_s = breaker.half_open_at_s()
        assert half_open_s is not None
        times.append(half_open_s - now_s)
        now_s = half_open_s
        breaker.record(Outcome.TIMED_OUT, now_s)
    assert times == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


def test_answers_from_before_the_failures_do_not_close_it() -> None:
    breaker = opened()
    for _ in range(10):
        breaker.record(Outcome.SUCCESS, 0.5)
    assert breaker.state(0.5) is BreakerState.OPEN


def test_news_of_a_return_lets_a_request_try_at_once() -> None:
    breaker = opened(now_s=5.0)
    breaker.retry_now(5.1)
    assert breaker.state(5.1) is BreakerState.HALF_OPEN


@given(st.lists(st.tuples(st.sampled_from(Outcome), st.floats(0.0, 3.0)), max_size=120))
def test_an_open_breaker_always_comes_back_within_its_limit(history: list[tuple[Outcome, float]]) -> None:
    breaker = CircuitBreaker(CONFIG)
    now_s = 0.0
    for outcome, seconds in history:
        now_s += seconds
        calm = breaker.is_calm(outcome)
        before = breaker.state(now_s)
        breaker.record(outcome, now_s)
        assert not calm or breaker.state(now_s) is before
    assert breaker.state(now_s + CONFIG.max_open_s) is not BreakerState.OPEN
