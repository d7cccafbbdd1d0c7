from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.queueing.class_line import REMEMBERED, ClassLine
from support.gateway_tickets import ticket

COSTS = st.lists(st.floats(1.0, 5000.0), min_size=1, max_size=30)
TENANTS = st.dictionaries(st.sampled_from("abcd"), st.tuples(st.floats(0.1, 10.0), COSTS), min_size=2, max_size=4)


@given(TENANTS, st.randoms())
def test_service_per_weight_of_waiting_tenants_differs_by_at_most_one_request_of_each(tenants, random) -> None:  # type: ignore[no-untyped-def]
    line = ClassLine()
    tickets = [
        ticket(tenant=name, weight=weight, cost_ms=cost) for name, (weight, costs) in tenants.items() for cost in costs
    ]
    random.shuffle(tickets)
    for item in tickets:
        line.add(item)
    served = dict.fromkeys(tenants, 0.0)
    largest = {name: max(costs) / weight for name, (weight, costs) in tenants.items()}
    while all(line.backlog_ms(name) > 0 for name in tenants):
        popped = line.pop()
        served[popped.tenant] += popped.cost_ms / popped.weight
        for one in tenants:
            for other in tenants:
                if line.backlog_ms(one) and line.backlog_ms(other):
                    assert served[one] - served[other] <= largest[one] + largest[other] + 1e-6


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0.1, 100.0)), max_size=40), st.randoms())
def test_every_request_leaves_exactly_once_and_a_tenants_own_in_order(items, random) -> None:  # type: ignore[no-untyped-def]
    line = ClassLine()
    added = []
    for position, (tenant, cost) in enumerate(items):
        item = ticket(tenant=tenant, cost_ms=cost, arrival_s=float(position))
        added.append(item)
        line.add(item)
    removed = [item for item in added if random.random() < 0.3]
    for item in removed:
        line.remove(item)
    popped = [line.pop() for _ in range(len(line))]
    assert sorted(popped + removed, key=lambda item: item.arrival_s) == added
    for tenant in "abc":
        own = [item.arrival_s for item in popped if item.tenant == tenant]
        assert own == sorted(own)
    assert (len(line), line.cost_ms, line.weight) == (0, 0.0, 0.0)


def test_a_removed_request_costs_its_tenant_nothing() -> None:
    line = ClassLine()
    for _ in range(3):
        line.add(ticket(tenant="a"))
        line.add(ticket(tenant="b"))
    gone = ticket(tenant="a", cost_ms=10_000.0)
    line.add(gone)
    line.remove(gone)
    assert [line.pop().tenant for _ in range(6)] == ["a", "b"] * 3


def test_idling_saves_nothing_up() -> None:
    line = ClassLine()
    for _ in range(20):
        line.add(ticket(tenant="busy"))
    for _ in range(10):
        line.pop()
    for _ in range(10):
        line.add(ticket(tenant="idle"))
    following = [line.pop().tenant for _ in range(10)]
    assert following.count("idle") == pytest.approx(5, abs=1)


def test_what_a_request_cost_beyond_its_price_delays_its_tenant() -> None:
    line = ClassLine()
    for _ in range(6):
        line.add(ticket(tenant="a"))
        line.add(ticket(tenant="b"))
    cheated = line.pop()
    line.settle(cheated, 300.0)
    assert [line.pop().tenant for _ in range(5)] == ["b", "b", "b", "b", cheated.tenant]


def test_the_heaviest_tenant_is_the_one_with_most_cost_per_weight() -> None:
    line = ClassLine()
    line.add(ticket(tenant="large", cost_ms=300.0, weight=10.0))
    newest = ticket(tenant="small", cost_ms=60.0)
    line.add(newest)
    assert line.heaviest() == (60.0, newest)


def test_tenants_that_are_gone_are_forgotten() -> None:
    line = ClassLine()
    line.add(ticket(tenant="first", cost_ms=1.0))
    for number in range(5 * REMEMBERED):
        line.add(ticket(tenant=str(number), cost_ms=1.0))
        line.pop()
    assert len(line) == 1
    assert len(line._virtual_ms) <= 3 * REMEMBERED + 2


def test_when_nobody_waits_all_start_level_again() -> None:
    line = ClassLine()
    line.add(ticket(tenant="was alone", cost_ms=10_000.0))
    line.pop()
    for _ in range(3):
        line.add(ticket(tenant="was alone"))
        line.add(ticket(tenant="new"))
    assert [line.pop().tenant for _ in range(6)] == ["was alone", "new"] * 3


def test_pop_of_an_empty_line_is_an_error() -> None:
    with pytest.raises(IndexError):
        ClassLine().pop()
