"""The promises of the queue, under three times the load that the backends can take. Service takes 0.2 to 5 s.

Time is simulated; the dispatcher, queue, headroom and pool are the gateway's own.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from foveal.core.priority import Priority
from foveal.gateway.queueing.config import HeadroomConfig, QueueConfig
from foveal.gateway.queueing.ticket import ShedReason
from support.gateway_simulation import Report, ServiceTime, Simulation, Stream, simulate

P0, P1, P2 = Priority
SHORT = ServiceTime(median_s=0.8, sigma=0.6)
URGENT = Stream("urgent", P0, load=0.3, service=SHORT, patience_s=2.0)
THREEFOLD = (
    URGENT,
    Stream("a", P1, load=0.35),
    Stream("b", P1, load=0.35),
    Stream("c", P2, load=1.0, patience_s=30.0),
    Stream("d", P2, load=1.0, patience_s=30.0),
)
SLOTS = Simulation(THREEFOLD, num_backends=4, slots=10, duration_s=300.0)
"""Backends whose slots are all that they can do: a kept slot is lost capacity."""
BRIEF = replace(SLOTS, duration_s=150.0)
BATCHING = replace(SLOTS, num_backends=2, slots=6, urgent_slots=4)
"""Backends that batch: above max_in_flight P0 shares the speed with the others."""


@pytest.fixture(scope="module", params=[SLOTS, BATCHING], ids=["slots", "batching"])
def overload(request: pytest.FixtureRequest) -> Report:
    return simulate(request.param)


def test_urgent_requests_start_within_100_ms(overload: Report) -> None:
    assert overload.by_class[P0].arrived > 500
    assert overload.by_class[P0].within(0.1) >= 0.99


def test_the_least_urgent_are_shed_first(overload: Report) -> None:
    urgent, middle, least = (overload.by_class[priority] for priority in Priority)
    assert urgent.shed == 0
    assert middle.shed_fraction < 0.35
    assert least.shed_fraction > 0.9


def test_the_backends_do_useful_work(overload: Report) -> None:
    assert overload.goodput >= 0.9


def test_nobody_starves(overload: Report) -> None:
    for tenant in "abcd":
        assert overload.by_tenant[tenant].started > 5


def test_the_queue_keeps_its_limit(overload: Report) -> None:
    assert overload.max_waiting <= 200


def test_without_kept_slots_the_promise_breaks() -> None:
    report = simulate(replace(BRIEF, headroom=HeadroomConfig(max_fraction=0.0)))
    assert report.by_class[P0].within(0.1) < 0.9
    assert report.goodput > 0.99


def test_waves_of_urgent_requests_are_met_with_more_free_slots() -> None:
    waves = (replace(URGENT, load=0.2, burst=2.0), *THREEFOLD[1:])
    report = simulate(replace(SLOTS, streams=waves))
    assert report.by_class[P0].within(0.1) >= 0.985


def test_a_flood_of_urgent_requests_leaves_the_others_their_share() -> None:
    flood = (replace(URGENT, load=2.0), Stream("a", P1, load=0.5), Stream("c", P2, load=0.5, patience_s=30.0))
    report = simulate(replace(BRIEF, streams=flood))
    total_s = sum(tenant.work_s for tenant in report.by_tenant.values())
    share = QueueConfig().aged_share
    assert report.goodput > 0.97
    assert report.by_tenant["a"].work_s / total_s == pytest.approx(share, abs=0.03)
    assert report.by_tenant["c"].work_s / total_s == pytest.approx(share, abs=0.03)


def test_without_overload_nobody_is_shed_and_nothing_is_lost() -> None:
    calm = (replace(URGENT, load=0.15), Stream("a", P1, load=0.3), Stream("c", P2, load=0.25, patience_s=30.0))
    report = simulate(replace(BRIEF, streams=calm))
    assert [report.by_class[priority].shed for priority in Priority] == [0, 0, 0]
    assert report.by_class[P1].within(0.5) > 0.95


def test_tenants_share_by_weight_and_cost_not_by_number_of_requests() -> None:
    small, large = ServiceTime(0.3, 0.3, 0.2, 1.0), ServiceTime(4.0, 0.2, 3.0, 5.0)
    streams = (
        Stream("many small", P1, load=1.5, service=small),
        Stream("few large", P1, load=1.5, service=large),
        Stream("double weight", P1, load=1.5, service=small, weight=2.0),
    )
    report = simulate(replace(BRIEF, streams=streams, duration_s=120.0))
    work = {name: tenant.work_s for name, tenant in report.by_tenant.items()}
    total_s = sum(work.values())
    assert work["many small"] / total_s == pytest.approx(0.25, abs=0.02)
    assert work["few large"] / total_s == pytest.approx(0.25, abs=0.02)
    assert work["double weight"] / total_s == pytest.approx(0.5, abs=0.02)


def test_prices_that_are_wrong_for_one_tenant_do_not_win_it_more() -> None:
    streams = (Stream("a", P1, load=1.5), Stream("cheap", P1, load=1.5, price_factor=0.25))
    report = simulate(replace(BRIEF, streams=streams))
    honest_s, cheap_s = report.by_tenant["a"].work_s, report.by_tenant["cheap"].work_s
    assert cheap_s / (honest_s + cheap_s) == pytest.approx(0.5, abs=0.05)


def test_a_modest_tenant_hardly_waits_behind_a_greedy_one() -> None:
    streams = (Stream("greedy", P1, load=3.0), Stream("modest", P1, load=0.1))
    report = simulate(replace(BRIEF, streams=streams))
    assert report.by_tenant["modest"].shed == 0
    assert report.by_tenant["modest"].wait_quantile_s(0.99) < 1.0
    assert report.by_tenant["greedy"].shed_fraction > 0.5


def test_what_is_admitted_rarely_passes_its_deadline() -> None:
    report = simulate(BRIEF)
    admitted = [shed for shed in report.sheds if shed.reason is ShedReason.EXPIRED]
    started = sum(tenant.started for tenant in report.by_tenant.values())
    assert len(admitted) < 0.15 * started


def test_those_who_return_when_told_find_room() -> None:
    surge = Stream("surge", P1, load=4.0, start_s=60.0, end_s=75.0, patience_s=5.0, returns=True)
    report = simulate(replace(BRIEF, streams=(Stream("steady", P1, load=0.3), surge), duration_s=200.0))
    assert report.returned > 100
    assert report.returned_started / report.returned > 0.8
