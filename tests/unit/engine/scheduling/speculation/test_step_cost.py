"""What a step takes, from readings."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.engine.scheduling.speculation.step_cost import StepCost


def test_ratios_are_learned_from_steps_next_to_each_other_while_the_machine_changes_speed() -> None:
    """Speed drifts by a factor of ten, back and forth, and single steps are disturbed; 5 tokens take 1.6 times as long."""
    cost, rng = StepCost(), random.Random(1)
    speed = 1.0
    for step in range(600):
        speed = min(10.0, max(1.0, speed * rng.choice((0.9, 1 / 0.9))))
        tokens = 1 if step % 8 == 0 else 5
        disturbed = 20.0 if rng.random() < 0.02 else 1.0
        cost.observe(tokens, speed * (1.6 if tokens == 5 else 1.0) * disturbed * rng.uniform(0.9, 1.1))
    assert cost.relative(5, 1) == pytest.approx(1.6, rel=0.15)


def test_the_estimate_follows_the_present_speed() -> None:
    cost = StepCost()
    for seconds in [1.0] * 20 + [3.0] * 20:
        cost.observe(3, seconds)
    assert cost.estimate(3) == pytest.approx(3.0, rel=0.05)


def test_between_readings_it_is_linear() -> None:
    cost = StepCost()
    cost.observe(2, 1.0)
    cost.observe(6, 3.0)
    assert cost.estimate(4) == pytest.approx(2.0)


def test_beyond_readings_more_tokens_take_longer() -> None:
    cost = StepCost()
    cost.observe(4, 1.0)
    assert cost.estimate(1) < 1.0 < cost.estimate(9)


def test_without_readings_only_ratios_are_known() -> None:
    cost = StepCost()
    assert cost.estimate(1) is None
    assert 1.0 < cost.relative(5, 1) < 5.0
    assert cost.relative(3, 3) == 1.0


def test_readings_of_a_clock_that_stands_still_are_left_out() -> None:
    cost = StepCost()
    cost.observe(4, 0.0)
    assert cost.estimate(4) is None


@given(st.integers(1, 5000))
def test_any_number_of_tokens_has_its_own_reading(num_tokens: int) -> None:
    cost = StepCost()
    cost.observe(num_tokens, 0.5)
    assert cost.estimate(num_tokens) == 0.5
