from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.resilience.config import BreakerConfig, HealthConfig, HedgeConfig, OutlierConfig, RetryConfig
from foveal.gateway.resilience.fallback import FallbackReason, fallback_model, reason_before_queue
from foveal.gateway.resilience.hedge_policy import HedgePolicy
from foveal.gateway.resilience.outcome import Outcome
from foveal.gateway.resilience.retry_policy import RetryPolicy
from foveal.gateway.resilience.token_budget import TokenBudget

LATER_S = 100.0


def retries(**settings: float) -> RetryPolicy:
    return RetryPolicy(RetryConfig(**settings), 0.0)  # type: ignore[arg-type]


@pytest.mark.parametrize("outcome", list(Outcome))
def test_only_failures_that_another_backend_may_not_have_are_tried_again(outcome: Outcome) -> None:
    expected = outcome not in (Outcome.SUCCESS, Outcome.CLIENT_ERROR, Outcome.CLIENT_GONE)
    assert retries().may_retry(outcome, 1, False, 0.0, LATER_S) is expected


def test_nothing_is_tried_again_once_the_client_saw_a_byte() -> None:
    assert not retries().may_retry(Outcome.BROKEN, 1, True, 0.0, LATER_S)


def test_attempts_and_time_are_bounded() -> None:
    policy = retries(max_attempts=3)
    assert policy.may_retry(Outcome.BROKEN, 2, False, 0.0, LATER_S)
    assert not policy.may_retry(Outcome.BROKEN, 3, False, 0.0, LATER_S)
    assert not policy.may_retry(Outcome.BROKEN, 1, False, LATER_S, LATER_S)


@given(st.integers(0, 500), st.floats(0.0, 1.0))
def test_retries_never_multiply_an_outage(num_requests: int, fraction: float) -> None:
    policy = retries(budget_fraction=fraction, budget_min_per_s=0.0, budget_burst=10.0)
    retried = 0
    for _ in range(num_requests):
        policy.on_request()
        retried += policy.try_spend(0.0)
    assert retried <= 10.0 + fraction * num_requests + 1e-6


def test_the_budget_refills_with_time() -> None:
    budget = TokenBudget(fraction=0.0, per_s=2.0, burst=1.0, now_s=0.0)
    assert budget.try_spend(0.0)
    assert not budget.try_spend(0.4)
    assert budget.try_spend(0.5)


def test_another_backend_is_tried_at_once_and_the_same_one_after_a_growing_wait() -> None:
    policy = retries(backoff_s=0.1, max_backoff_s=0.3)
    assert policy.backoff_s(1, elsewhere=True) == 0.0
    assert [policy.backoff_s(attempts, elsewhere=False) for attempts in (1, 2, 3)] == pytest.approx([0.1, 0.2, 0.3])


def hedges(**settings: float) -> HedgePolicy:
    policy = HedgePolicy(HedgeConfig(enabled=True, min_requests=20, **settings), 0.0)  # type: ignore[arg-type]
    for number in range(500):
        policy.record(first_byte_s=number % 100 / 100, cost_ms=1000.0)
    return policy


def test_the_delay_is_a_quantile_for_this_requests_price() -> None:
    policy = hedges(quantile=0.9, min_delay_s=0.01)
    small, large = policy.delay_s(100.0, 0.1), policy.delay_s(2000.0, 0.1)
    assert small == pytest.approx(0.09, abs=0.01)
    assert large == pytest.approx(1.8, abs=0.1)


def test_a_busy_model_is_not_hedged() -> None:
    assert hedges(max_load=0.7).delay_s(100.0, 0.71) is None


def test_hedges_are_off_by_default_and_until_enough_is_known() -> None:
    off = HedgePolicy(HedgeConfig(), 0.0)
    for _ in range(100):
        off.record(1.0, 1000.0)
    assert off.delay_s(100.0, 0.0) is None
    assert not off.try_spend(0.0)
    assert HedgePolicy(HedgeConfig(enabled=True), 0.0).delay_s(100.0, 0.0) is None


def test_hedges_are_a_small_part_of_the_requests() -> None:
    policy = HedgePolicy(HedgeConfig(enabled=True, budget_fraction=0.05), 0.0)
    spent = 0
    for _ in range(1000):
        policy.record(1.0, 1000.0)
        spent += policy.try_spend(0.0)
    assert spent == pytest.approx(58, abs=1)  # 5 % and the burst of 8


def test_a_request_goes_to_the_fallback_when_its_model_is_down_or_too_late() -> None:
    assert reason_before_queue(False, None, 1.0) is FallbackReason.PRIMARY_DOWN
    assert reason_before_queue(True, 2.0, 1.0) is FallbackReason.QUEUE_LATE
    assert reason_before_queue(True, 0.5, 1.0) is None
    assert reason_before_queue(True, None, 1.0) is None


def test_fallbacks_end_and_respect_what_the_tenant_may_use() -> None:
    assert fallback_model("small", {"large"}, None) == "small"
    assert fallback_model("large", {"large"}, None) is None
    assert fallback_model("small", set(), {"large"}) is None
    assert fallback_model(None, set(), None) is None


@pytest.mark.parametrize(
    "make",
    [
        lambda: BreakerConfig(failure_ratio=0.0),
        lambda: BreakerConfig(open_s=60.0),
        lambda: BreakerConfig(window=0),
        lambda: OutlierConfig(slowness=1.0),
        lambda: OutlierConfig(max_fraction=1.0),
        lambda: HealthConfig(timeout_s=0.0),
        lambda: HealthConfig(first_share=0.0),
        lambda: HealthConfig(failures_to_eject=0),
        lambda: RetryConfig(max_attempts=0),
        lambda: RetryConfig(budget_fraction=-1.0),
        lambda: HedgeConfig(quantile=1.0),
        lambda: HedgeConfig(budget_fraction=2.0),
    ],
)
def test_settings_that_cannot_work_are_refused(make) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match="must be"):
        make()
