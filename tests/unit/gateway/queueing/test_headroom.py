from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.core.priority import Priority
from foveal.gateway.queueing.config import HeadroomConfig
from foveal.gateway.queueing.headroom import Headroom, miss_fraction, slots_needed

P0, P1, _ = Priority


def missed(num_free: int, urgent_per_s: float, releases_per_s: float, wait_s: float, rng: random.Random) -> float:
    """The slots played out: every release gives one back, each P0 request takes one, the first free to the first come."""
    now_s, free, waiting, late, count = 0.0, num_free, [], 0, 0
    while count < 100_000:
        now_s += rng.expovariate(urgent_per_s + releases_per_s)
        if rng.random() < urgent_per_s / (urgent_per_s + releases_per_s):
            count += 1
            if free:
                free -= 1
            else:
                waiting.append(now_s)
        elif waiting:
            late += now_s - waiting.pop(0) > wait_s
        else:
            free = min(num_free, free + 1)
    return late / count


@pytest.mark.parametrize(
    ("num_free", "urgent", "releases"), [(0, 9.0, 30.0), (1, 5.0, 10.0), (2, 9.0, 20.0), (3, 2.0, 5.0)]
)
def test_the_formula_agrees_with_slots_played_out(num_free: int, urgent: float, releases: float) -> None:
    played = missed(num_free, urgent, releases, 0.1, random.Random(1))
    assert miss_fraction(num_free, urgent, releases, 0.1) == pytest.approx(played, abs=0.012)


@given(st.floats(0.01, 100.0), st.floats(1.05, 50.0), st.floats(0.001, 0.5), st.floats(0.0, 1.0))
def test_the_slots_needed_keep_the_promise_and_one_less_does_not(
    urgent: float, ratio: float, miss: float, wait_s: float
) -> None:
    needed = slots_needed(urgent, urgent * ratio, wait_s, miss)
    assert needed is not None
    at_least = int(needed) + 1
    assert miss_fraction(at_least, urgent, urgent * ratio, wait_s) <= miss * 1.0001
    if needed >= 1:
        assert miss_fraction(int(needed) - 1, urgent, urgent * ratio, wait_s) > miss


def test_more_urgent_requests_than_releases_cannot_be_helped() -> None:
    assert slots_needed(10.0, 10.0, 0.1, 0.01) is None
    assert miss_fraction(100, 11.0, 10.0, 0.1) == 1.0


def test_no_urgent_requests_need_no_slots() -> None:
    assert slots_needed(0.0, 10.0, 0.1, 0.01) == 0.0
    assert miss_fraction(0, 0.0, 10.0, 0.1) == 0.0


def measured(
    headroom: Headroom, urgent_per_s: float, service_s: float, num_slots: int, seconds: float = 120.0
) -> float:
    """Let it see a full house. Returns the time."""
    now_s, next_urgent, next_release = 0.0, 0.0, 0.0
    number = 0
    while now_s < seconds:
        now_s = min(next_urgent, next_release)
        if next_urgent <= next_release:
            headroom.on_urgent_arrival(now_s)
            next_urgent += 1.0 / urgent_per_s
        else:
            number += 1
            share = urgent_per_s * service_s / num_slots
            priority = P0 if int(number * share) > int((number - 1) * share) else P1
            headroom.on_release(priority, service_s, now_s)
            next_release += service_s / num_slots
    return now_s


def mean_slots(headroom: Headroom, num_slots: int, now_s: float) -> float:
    return sum(headroom.slots(num_slots, now_s) for _ in range(100)) / 100


def test_slots_follow_the_measured_rates() -> None:
    few, many = Headroom(HeadroomConfig(), 0.0), Headroom(HeadroomConfig(), 0.0)
    now_s = measured(few, urgent_per_s=1.0, service_s=1.0, num_slots=32)
    measured(many, urgent_per_s=9.0, service_s=1.0, num_slots=32)
    assert mean_slots(few, 32, now_s) < mean_slots(many, 32, now_s)
    wanted = slots_needed(9.0, 32.0, 0.09, HeadroomConfig().miss_fraction)
    assert mean_slots(many, 32, now_s) == pytest.approx(wanted, abs=0.3)


def test_quick_backends_free_slots_often_enough_without_any_kept_free() -> None:
    headroom = Headroom(HeadroomConfig(), 0.0)
    now_s = measured(headroom, urgent_per_s=30.0, service_s=0.1, num_slots=32, seconds=60.0)
    assert headroom.slots(32, now_s) == 0


def test_late_requests_add_slots_and_timely_ones_take_them_away() -> None:
    headroom = Headroom(HeadroomConfig(), 0.0)
    now_s = measured(headroom, urgent_per_s=5.0, service_s=1.0, num_slots=32)
    before = mean_slots(headroom, 32, now_s)
    for _ in range(8):
        headroom.on_urgent_start(0.5)
    raised = mean_slots(headroom, 32, now_s)
    for _ in range(3000):
        headroom.on_urgent_start(0.0)
    assert raised == pytest.approx(before + 2.0, abs=0.1)
    assert mean_slots(headroom, 32, now_s) < before


@given(st.lists(st.floats(0.0, 1.0), max_size=300), st.integers(0, 64))
def test_no_more_than_the_allowed_part_is_ever_kept_free(waits: list[float], num_slots: int) -> None:
    headroom = Headroom(HeadroomConfig(max_fraction=0.25), 0.0)
    for number, waited_s in enumerate(waits):
        now_s = number * 0.1
        headroom.on_urgent_arrival(now_s)
        headroom.on_urgent_start(waited_s)
        headroom.on_release(P1, 1.0, now_s)
        assert 0 <= headroom.slots(num_slots, now_s) <= num_slots * 0.25


def test_a_flood_of_urgent_requests_gets_no_slots_of_its_own() -> None:
    headroom = Headroom(HeadroomConfig(promised_share=0.5), 0.0)
    now_s = measured(headroom, urgent_per_s=20.0, service_s=1.0, num_slots=32)
    assert headroom.slots(32, now_s) == 0


def test_where_no_tenant_may_be_urgent_nothing_is_kept_free() -> None:
    headroom = Headroom(HeadroomConfig(assumed_share=0.0), 0.0)
    assert headroom.slots(32, 0.0) == 0
    headroom.on_release(P1, 1.0, 1.0)
    assert headroom.slots(32, 2.0) == 0


def test_before_anything_is_known_one_slot_is_kept() -> None:
    assert Headroom(HeadroomConfig(), 0.0).slots(32, 0.0) == 1
    assert Headroom(HeadroomConfig(), 0.0).slots(3, 0.0) == 0


@pytest.mark.parametrize("settings", [{"miss_fraction": 0.0}, {"safety": 1.5}, {"max_fraction": 1.0}])
def test_settings_that_cannot_work_are_refused(settings: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="headroom"):
        HeadroomConfig(**settings)
