from __future__ import annotations

import pytest

from foveal.gateway.backends.backend import BackendState
from foveal.gateway.resilience.backend_health import BackendHealth
from foveal.gateway.resilience.config import BreakerConfig, HealthConfig, OutlierConfig
from foveal.gateway.resilience.outcome import Outcome

CONFIG = HealthConfig(
    failures_to_eject=2,
    successes_to_return=2,
    slow_start_s=10.0,
    first_share=0.2,
    breaker=BreakerConfig(consecutive_failures=2, open_s=1.0, successes_to_close=1),
    outlier=OutlierConfig(eject_s=30.0),
)


def healthy() -> BackendHealth:
    health = BackendHealth(CONFIG)
    health.probed(True, 0.0)
    return health


def state(health: BackendHealth, now_s: float) -> BackendState:
    return health.view(now_s)[0]


def test_a_new_backend_waits_for_its_first_check() -> None:
    health = BackendHealth(CONFIG)
    assert state(health, 0.0) is BackendState.STARTING
    health.probed(False, 1.0)
    health.probed(False, 2.0)
    assert state(health, 2.0) is BackendState.STARTING
    health.probed(True, 3.0)
    assert health.view(3.0)[:2] == (BackendState.UP, 1.0)


def test_without_checks_it_is_trusted_unseen() -> None:
    assert state(BackendHealth(HealthConfig(interval_s=0)), 0.0) is BackendState.UP


def test_failed_checks_in_a_row_eject_it_and_it_returns_slowly() -> None:
    health = healthy()
    health.probed(False, 1.0)
    assert state(health, 1.0) is BackendState.UP
    health.probed(False, 2.0)
    assert state(health, 2.0) is BackendState.EJECTED
    health.probed(True, 3.0)
    assert state(health, 3.0) is BackendState.EJECTED
    health.probed(True, 4.0)
    assert health.view(4.0)[:2] == (BackendState.RETURNING, pytest.approx(0.2))
    assert health.view(9.0)[:2] == (BackendState.RETURNING, pytest.approx(0.6))
    assert health.view(14.0)[:2] == (BackendState.UP, 1.0)


def test_failed_requests_eject_it_although_its_checks_pass() -> None:
    health = healthy()
    health.record(Outcome.BAD_ANSWER, 1.0)
    health.record(Outcome.BAD_ANSWER, 1.0)
    health.probed(True, 1.5)
    assert state(health, 1.5) is BackendState.EJECTED
    assert health.next_change_s(1.5) == 2.0
    assert health.view(2.0)[:2] == (BackendState.RETURNING, 0.0)
    health.record(Outcome.SUCCESS, 2.5)
    assert health.view(2.5)[:2] == (BackendState.RETURNING, pytest.approx(0.2))


def test_a_process_that_was_restarted_need_not_wait_for_the_breaker() -> None:
    health = healthy()
    for now_s in (1.0, 1.0, 2.0, 4.0):  # opens, and fails twice when tried: 4 s now
        health.record(Outcome.CONNECT_FAILED, now_s)
    health.probed(False, 4.1)
    health.probed(False, 4.2)
    health.probed(True, 4.3)
    health.probed(True, 4.4)
    assert health.view(4.4)[:2] == (BackendState.RETURNING, 0.0)


def test_slowness_ejects_for_longer_each_time_until_it_is_forgiven() -> None:
    health = healthy()
    health.eject_slow(0.0)
    assert state(health, 29.9) is BackendState.EJECTED
    assert state(health, 30.0) is BackendState.RETURNING
    health.eject_slow(40.0)
    assert health.next_change_s(40.0) == 100.0
    health.praise()
    health.eject_slow(200.0)
    assert health.next_change_s(200.0) == 230.0


def test_a_view_holds_until_it_says() -> None:
    health = healthy()
    health.record(Outcome.BROKEN, 1.0)
    health.record(Outcome.BROKEN, 1.0)
    shown, _, until_s = health.view(1.0)
    assert (shown, until_s) == (BackendState.EJECTED, 2.0)
    assert health.view(1.99)[0] is BackendState.EJECTED
    assert health.view(2.0)[0] is BackendState.RETURNING


def test_good_requests_are_known_to_change_nothing() -> None:
    health = healthy()
    assert health.record(Outcome.SUCCESS, 0.0) is False
    assert health.record(Outcome.CLIENT_GONE, 0.0) is False
    assert health.record(Outcome.BROKEN, 0.0) is True
