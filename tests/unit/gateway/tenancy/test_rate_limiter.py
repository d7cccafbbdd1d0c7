"""Limits per tenant, as properties of whole schedules."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.core.errors import RateLimitedError
from foveal.core.vision_cost import VisionCost
from foveal.gateway.pricing.price import Price
from foveal.gateway.state.database import StateDatabase
from foveal.gateway.state.schema import MIGRATIONS
from foveal.gateway.tenancy.daily_usage import DailyUsage
from foveal.gateway.tenancy.rate import Rate
from foveal.gateway.tenancy.rate_limiter import RateLimiter
from foveal.gateway.tenancy.tenant import Tenant, TenantLimits

NOON = 1_000_000.0 * 86_400 + 43_200


@pytest.fixture(scope="module")
def database() -> Iterator[StateDatabase]:
    database = StateDatabase(None, MIGRATIONS)
    yield database
    database.close()


def limiter_of(database: StateDatabase) -> RateLimiter:
    return RateLimiter(DailyUsage(database, lambda: NOON))


def price(prompt: int = 10, output: int = 0, vision_ms: float = 0.0) -> Price:
    return Price(prompt, output, 1.0, VisionCost(0, vision_ms, 0))


def tenant(name: str = "a", burst_s: float = 10.0, **limits: float) -> Tenant:
    return Tenant(name, limits=TenantLimits(**limits), burst_s=burst_s)  # type: ignore[arg-type]


schedules = st.lists(
    st.tuples(st.floats(0.0, 30.0), st.integers(1, 500)), min_size=1, max_size=60
)  # (time since the last one, cost)


@given(schedules, st.integers(1, 1000), st.floats(0.5, 60.0))
@settings(deadline=None)
def test_over_any_period_no_more_passes_than_rate_burst_and_one_large_request(
    schedule: list[tuple[float, int]], per_minute: int, burst_s: float
) -> None:
    rate, now, passed = Rate(), 0.0, []
    for gap, cost in schedule:
        now += gap
        if rate.wait_s(60.0 * cost / per_minute, burst_s, now) == 0.0:
            rate.take(60.0 * cost / per_minute, now)
            passed.append((now, cost))
    for i, (start, _) in enumerate(passed):
        for end, last in passed[i:]:
            total = sum(cost for at, cost in passed[i:] if at <= end)
            allowed = per_minute * (end - start + burst_s) / 60.0
            assert total <= max(allowed, 0.0) + max(last, max(c for _, c in passed[i:])) + 1e-6


@given(schedules, st.integers(1, 1000), st.floats(0.5, 60.0))
@settings(deadline=None)
def test_who_waits_as_told_passes_and_a_moment_earlier_does_not(
    schedule: list[tuple[float, int]], per_minute: int, burst_s: float
) -> None:
    rate, now = Rate(), 0.0
    for gap, cost in schedule:
        now += gap
        wait = rate.wait_s(60.0 * cost / per_minute, burst_s, now)
        if wait > 1e-3:
            assert rate.wait_s(60.0 * cost / per_minute, burst_s, now + 0.99 * wait - 1e-6) > 0.0
            now += wait
            assert rate.wait_s(60.0 * cost / per_minute, burst_s, now) <= 1e-6
        rate.take(60.0 * cost / per_minute, now)


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), min_size=1, max_size=20))
@settings(max_examples=50, deadline=None)
def test_after_settling_the_debt_is_that_of_the_real_usage(usages: list[tuple[int, int]]) -> None:
    database = StateDatabase(None, MIGRATIONS)
    try:
        guessed, known = limiter_of(database), limiter_of(database)
        who = tenant(burst_s=1e6, tokens_per_minute=1000)
        for estimate, real in usages:
            one, other = guessed.reserve(who, price(estimate), 100.0), known.reserve(who, price(real), 100.0)
            one.settle(real, 0)
            one.settle(0, 0)
            other.settle(real, 0)
            one.release()
            other.release()
        waits = [limiter._tallies["a"].tokens.wait_s(6.0, 10.0, 100.0) for limiter in (guessed, known)]
        assert waits[0] == pytest.approx(waits[1], abs=1e-6)
        day = guessed.daily.today()
        assert guessed.daily.used("a", day) == known.daily.used("a", day) == (len(usages), sum(r for _, r in usages))
    finally:
        database.close()


@given(
    st.lists(
        st.tuples(st.sampled_from("ab"), st.floats(0.0, 5.0), st.integers(1, 100), st.booleans()),
        min_size=1,
        max_size=60,
    )
)
@settings(max_examples=50, deadline=None)
def test_what_one_tenant_does_changes_nothing_for_another(
    steps: list[tuple[str, float, int, bool]],
) -> None:
    database = StateDatabase(None, MIGRATIONS)
    try:
        together, alone = limiter_of(database), limiter_of(database)
        tenants = {n: tenant(n, requests_per_minute=30, tokens_per_minute=600, max_concurrent=3) for n in "ab"}
        now = 0.0
        for name, gap, cost, ends in steps:
            now += gap
            outcomes = []
            for limiter in (together, alone):
                if limiter is alone and name != "a":
                    continue
                try:
                    reservation = limiter.reserve(tenants[name], price(cost), now)
                    outcomes.append("passed")
                    if ends:
                        reservation.release()
                except RateLimitedError as error:
                    outcomes.append(f"{error.limit} {error.retry_after_s:.6f}")
            assert len(set(outcomes)) == 1
    finally:
        database.close()


@pytest.mark.parametrize(
    ("limits", "one", "name"),
    [
        ({"requests_per_minute": 6}, price(), "requests"),
        ({"tokens_per_minute": 600}, price(60, 40), "tokens"),
        ({"vision_ms_per_minute": 600.0}, price(vision_ms=100.0), "vision"),
    ],
)
def test_each_limit_refuses_by_its_name_says_when_and_then_lets_pass(
    database: StateDatabase, limits: dict[str, float], one: Price, name: str
) -> None:
    limiter, who = limiter_of(database), tenant(**limits)
    limiter.reserve(who, one, 5.0).release()
    held = limiter.reserve(tenant("b", **limits), one, 5.0)
    with pytest.raises(RateLimitedError) as caught:
        limiter.reserve(tenant("b", **limits), one, 6.0)
    assert caught.value.limit == name
    assert caught.value.retry_after_s == pytest.approx(9.0)
    assert limiter.reserve(tenant("b", **limits), one, 15.0)
    held.release()


def test_a_request_without_images_is_not_held_up_by_a_spent_vision_limit(database: StateDatabase) -> None:
    limiter, who = limiter_of(database), tenant(vision_ms_per_minute=60.0)
    limiter.reserve(who, price(vision_ms=1000.0), 0.0)
    limiter.reserve(who, price(), 0.0)
    with pytest.raises(RateLimitedError, match="image encoding"):
        limiter.reserve(who, price(vision_ms=1.0), 0.0)


def test_a_request_larger_than_the_burst_passes_when_nothing_is_owed(database: StateDatabase) -> None:
    limiter, who = limiter_of(database), tenant(tokens_per_minute=60, burst_s=1.0)
    limiter.reserve(who, price(600), 0.0)
    with pytest.raises(RateLimitedError) as caught:
        limiter.reserve(who, price(1), 1.0)
    assert 598.0 <= caught.value.retry_after_s <= 600.0


def test_concurrency_is_given_back_once_however_often_it_is_released(database: StateDatabase) -> None:
    limiter, who = limiter_of(database), tenant(max_concurrent=2)
    first, second = limiter.reserve(who, price(), 0.0), limiter.reserve(who, price(), 0.0)
    with pytest.raises(RateLimitedError, match="2 requests of this tenant are in progress"):
        limiter.reserve(who, price(), 0.0)
    first.release()
    first.release()
    limiter.reserve(who, price(), 0.0)
    with pytest.raises(RateLimitedError):
        limiter.reserve(who, price(), 0.0)
    second.release()


def test_a_refused_request_has_taken_nothing(database: StateDatabase) -> None:
    limiter = limiter_of(database)
    strict = tenant(requests_per_minute=60, tokens_per_minute=60, burst_s=60.0)
    limiter.reserve(strict, price(60), 0.0)
    for _ in range(100):
        with pytest.raises(RateLimitedError):
            limiter.reserve(strict, price(60), 0.0)
    limiter.reserve(strict, price(60), 60.0)
    assert limiter.daily.used("a", limiter.daily.today()) == (2, 120)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"requests_per_minute": 6}, "requests"),
        ({"max_concurrent": 1}, "concurrency"),
        ({"requests_per_day": 1}, "daily_requests"),
    ],
)
def test_some_limits_need_no_price(database: StateDatabase, limits: dict[str, float], name: str) -> None:
    limiter, who = limiter_of(database), tenant(**limits)
    entered = limiter.enter(who, 0.0)
    with pytest.raises(RateLimitedError) as caught:
        limiter.enter(who, 0.0)
    assert caught.value.limit == name
    limiter.charge(entered, price(60), 0.0)


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ({"tokens_per_minute": 600}, "tokens"),
        ({"vision_ms_per_minute": 60}, "vision"),
        ({"tokens_per_day": 100}, "daily_tokens"),
    ],
)
def test_a_request_that_is_priced_later_pays_the_same_and_stays_counted_when_refused(
    database: StateDatabase, limits: dict[str, float], name: str
) -> None:
    limiter, who, one = limiter_of(database), tenant(**limits), price(100, vision_ms=10.0)
    limiter.charge(limiter.enter(who, 0.0), one, 0.0)
    entered = limiter.enter(who, 0.0)
    with pytest.raises(RateLimitedError) as caught:
        limiter.charge(entered, one, 0.0)
    entered.release()
    assert caught.value.limit == name
    assert limiter.daily.used("a", limiter.daily.today()) == (2, 100)


def test_a_request_that_never_ran_gives_back_tokens_but_stays_counted(database: StateDatabase) -> None:
    limiter = limiter_of(database)
    limiter.reserve(tenant(), price(60), 0.0).release()
    assert limiter.daily.used("a", limiter.daily.today()) == (1, 0)


def test_changed_limits_hold_at_once_and_keep_what_was_taken(database: StateDatabase) -> None:
    limiter = limiter_of(database)
    limiter.reserve(tenant(requests_per_minute=60), price(), 0.0)
    limiter.reserve(tenant(requests_per_minute=60), price(), 0.0)
    with pytest.raises(RateLimitedError):
        limiter.reserve(tenant(max_concurrent=2), price(), 0.0)


@pytest.mark.parametrize(
    ("limits", "name"), [({"tokens_per_day": 100}, "daily_tokens"), ({"requests_per_day": 1}, "daily_requests")]
)
def test_a_day_s_quota_ends_at_midnight_utc(database: StateDatabase, limits: dict[str, float], name: str) -> None:
    wall = [NOON]
    limiter = RateLimiter(DailyUsage(database, lambda: wall[0]))
    limiter.reserve(tenant(**limits), price(60), 0.0)
    with pytest.raises(RateLimitedError) as caught:
        limiter.reserve(tenant(**limits), price(60), 0.0)
    assert (caught.value.limit, caught.value.retry_after_s) == (name, 43_200.0)
    wall[0] += 43_200.0
    limiter.reserve(tenant(**limits), price(60), 0.0)
