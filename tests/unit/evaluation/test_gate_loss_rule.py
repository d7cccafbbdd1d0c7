"""When a measured loss counts as one."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.evaluation.checks.loss_rule import accuracy_loss, classify, items_needed, pooled_loss
from foveal.evaluation.metrics.bootstrap import Interval, mean_difference_interval

_number = st.floats(-50, 50)


@pytest.mark.parametrize(
    ("low", "estimate", "high", "evidence"),
    [
        (-1.0, 0.0, 1.0, "kept"),
        (1.0, 1.2, 1.5, "kept"),
        (0.1, 1.6, 3.0, "proved"),
        (-0.5, 2.0, 4.0, "within noise"),
        (0.5, 1.4, 2.5, "within noise"),
        (-5.0, 1.0, 7.0, "undecided"),
        (-1.0, 3.0, 7.0, "undecided"),
    ],
)
def test_the_four_cases(low: float, estimate: float, high: float, evidence: str) -> None:
    assert classify(Interval(estimate, low, high), limit=1.5, ceiling=6.0) == evidence


@given(bounds=st.tuples(_number, _number, _number).map(sorted), more=st.floats(0, 20))
def test_a_worse_interval_never_turns_a_failure_into_a_pass(bounds: list[float], more: float) -> None:
    low, estimate, high = bounds
    here = classify(Interval(estimate, low, high), limit=1.5, ceiling=6.0)
    worse = classify(Interval(estimate + more, low + more, high + more), limit=1.5, ceiling=6.0)
    if here in ("proved", "undecided"):
        assert worse in ("proved", "undecided")


def test_pairs_make_a_small_loss_visible() -> None:
    """20 of 1,000 items lost and none gained: clear in pairs, invisible between independent samples."""
    base = [True] * 800 + [False] * 200
    candidate = [False] * 20 + [True] * 780 + [False] * 200
    loss = accuracy_loss(base, candidate, confidence=0.95, resamples=4000)
    assert loss.estimate == pytest.approx(2.0)
    assert 1.0 < loss.low < loss.high < 3.1


def test_the_interval_is_that_of_drawing_items_one_by_one() -> None:
    rng = random.Random(3)
    base = [rng.random() < 0.7 for _ in range(300)]
    candidate = [rng.random() < 0.7 if rng.random() < 0.3 else right for right in base]
    fast = accuracy_loss(base, candidate, confidence=0.95, resamples=20_000)
    slow = mean_difference_interval(base, candidate, resamples=5_000)
    assert fast.estimate == pytest.approx(100 * slow.estimate)
    assert (fast.low, fast.high) == pytest.approx((100 * slow.low, 100 * slow.high), abs=0.4)


@pytest.mark.parametrize(("items", "bound"), [(10, 30.8), (100, 3.62), (1000, 0.368)])
def test_no_lost_item_among_few_proves_little(items: int, bound: float) -> None:
    """The exact upper limit of a binomial with no event, 1 - 0.025^(1/n)."""
    answers = [True] * items
    assert accuracy_loss(answers, answers, confidence=0.95, resamples=100).high == pytest.approx(bound, rel=0.01)


def test_tasks_count_alike_when_they_are_pooled() -> None:
    large = ([True] * 900, [True] * 900)
    small = ([True] * 100, [True] * 90 + [False] * 10)
    assert pooled_loss([large, small], confidence=0.95, resamples=500).estimate == pytest.approx(5.0)


def test_the_items_asked_for_would_settle_it() -> None:
    loss = Interval(1.0, -9.0, 11.0)
    assert items_needed(loss, 50, ceiling=6.0) == 200
    assert items_needed(Interval(7.0, -1.0, 15.0), 50, ceiling=6.0) is None
