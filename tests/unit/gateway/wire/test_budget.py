from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.gateway.wire.budget import ByteBudget, Reservation


@given(st.lists(st.tuples(st.sampled_from(["take", "release", "cancel"]), st.integers(1, 60)), max_size=60))
def test_never_more_than_the_limit_is_out_and_everything_comes_back(steps: list[tuple[str, int]]) -> None:
    budget = ByteBudget(100)
    held: list[int] = []
    waiting: list[Reservation] = []
    granted: list[int] = []
    for action, amount in steps:
        if action == "take":
            if budget.try_reserve(amount):
                held.append(amount)
            else:
                waiting.append(budget.wait(amount, lambda amount=amount: (held.append(amount), granted.append(amount))))  # type: ignore[misc]
        elif action == "release" and held:
            budget.release(held.pop(amount % len(held)))
        elif action == "cancel" and waiting:
            budget.cancel(waiting.pop(amount % len(waiting)))
        assert budget.used == sum(held) <= 100
        assert budget.num_waiting == sum(claim.open for claim in waiting)
    for claim in waiting:
        budget.cancel(claim)
    for amount in held:
        budget.release(amount)
    assert (budget.used, budget.num_waiting) == (0, 0)


def test_a_small_claim_does_not_overtake_a_large_one() -> None:
    budget = ByteBudget(100)
    order: list[str] = []
    assert budget.try_reserve(60)
    budget.wait(80, lambda: order.append("large"))
    assert not budget.try_reserve(10)
    budget.wait(10, lambda: order.append("small"))
    budget.release(60)
    assert order == ["large", "small"]


def test_a_claim_given_up_lets_those_behind_it_through() -> None:
    budget = ByteBudget(100)
    order: list[str] = []
    assert budget.try_reserve(60)
    large = budget.wait(80, lambda: order.append("large"))
    budget.wait(10, lambda: order.append("small"))
    budget.cancel(large)
    budget.cancel(large)
    assert order == ["small"]


def test_more_cannot_be_given_back_than_was_taken() -> None:
    budget = ByteBudget(100)
    with pytest.raises(ValueError, match="only 0 are reserved"):
        budget.release(1)
