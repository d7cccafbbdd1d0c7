"""The knapsack that turns measured damage into bits."""

from __future__ import annotations

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.compression.budget import Option, choose, parse_budget, solve
from foveal.core.errors import ConfigurationError

_OPTION = st.builds(Option, st.integers(0, 60), st.integers(0, 200).map(lambda n: n / 8), st.just("any"))
_GROUPS = st.lists(st.lists(_OPTION, min_size=1, max_size=4), min_size=1, max_size=6)


def _brute_force(groups: list[list[Option]], budget: int) -> float | None:
    totals = (
        (sum(option.cost_bytes for option in pick), sum(option.damage for option in pick))
        for pick in itertools.product(*groups)
    )
    return min((damage for cost, damage in totals if cost <= budget), default=None)


@settings(max_examples=150, deadline=None)
@given(_GROUPS, st.integers(0, 250))
def test_no_choice_within_the_budget_does_less_damage(groups: list[list[Option]], budget: int) -> None:
    least = _brute_force(groups, budget)
    if least is None:
        with pytest.raises(ConfigurationError, match="smallest choice"):
            solve(groups, budget)
        return
    found = solve(groups, budget)
    assert found.damage == pytest.approx(least, abs=1e-9)
    assert found.gap <= 1e-9
    assert found.cost_bytes <= budget
    taken = [group[index] for group, index in zip(groups, found.choice, strict=True)]
    assert found.cost_bytes == sum(option.cost_bytes for option in taken)
    assert found.damage == pytest.approx(sum(option.damage for option in taken))


@settings(max_examples=80, deadline=None)
@given(_GROUPS, st.integers(0, 250), st.integers(1, 3))
def test_bound_holds_when_states_are_dropped(groups: list[list[Option]], budget: int, max_states: int) -> None:
    least = _brute_force(groups, budget)
    if least is None:
        return
    found = solve(groups, budget, max_states=max_states)
    assert found.bound <= least + 1e-9
    assert least <= found.damage + 1e-9
    assert found.damage == pytest.approx(found.bound + found.gap)


def _model_sized(groups: int, options: int, seed: int) -> list[list[Option]]:
    """Few distinct shapes, as in a model, and damage that falls about sixteenfold per doubling of bits."""
    rng = random.Random(seed)
    sizes = [rng.choice((331_776, 552_960, 884_736, 1_769_472)) for _ in range(groups)]
    return [
        [
            Option(size * bits // 8, rng.lognormvariate(-4, 1.5) * 16 ** (-(bits - 4) / 4), f"int{bits}")
            for bits in (3, 4, 8, 16)[:options]
        ]
        for size in sizes
    ]


@pytest.mark.parametrize("share", [0.25, 0.4, 0.7])
def test_a_model_sized_problem_is_solved_exactly(share: float) -> None:
    groups = _model_sized(170, 4, seed=1)
    found = solve(groups, int(share * sum(group[-1].cost_bytes for group in groups)))
    assert found.gap == 0.0


def test_more_budget_never_does_more_damage() -> None:
    groups = _model_sized(40, 4, seed=2)
    least = sum(group[0].cost_bytes for group in groups)
    damages = [solve(groups, least + extra).damage for extra in range(0, 30_000_000, 3_000_000)]
    assert damages == sorted(damages, reverse=True)


def test_same_problem_same_choice() -> None:
    groups = [[Option(4, 1.0, "a"), Option(4, 1.0, "b"), Option(8, 0.5, "c")]] * 5
    assert choose(groups, 28) == choose(groups, 28)
    assert solve(groups, 28).damage == 4.0


def test_impossible_budget_names_the_least_possible_size() -> None:
    with pytest.raises(ConfigurationError, match=r"budget is 99 bytes.*takes 1,234"):
        solve([[Option(1_000, 0.1, "int4")], [Option(234, 0.1, "int4"), Option(500, 0.0, "int8")]], 99)


def test_damage_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not finite"):
        solve([[Option(1, float("nan"), "int4")]], 10)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("60%", 120_000_000), ("90MB", 90_000_000), ("90 mb", 90_000_000), ("1.5GiB", 1_610_612_736), ("512B", 512),
     ("33.3%", 66_600_000)],
)  # fmt: skip
def test_budgets_are_shares_or_sizes(text: str, expected: int) -> None:
    assert parse_budget(text, 200_000_000) == expected


@pytest.mark.parametrize("text", ["", "90", "0%", "-5MB", "lots", "90TBs", "1e3MB"])
def test_other_budgets_are_refused_with_an_example(text: str) -> None:
    with pytest.raises(ConfigurationError, match="90MB"):
        parse_budget(text, 200_000_000)
