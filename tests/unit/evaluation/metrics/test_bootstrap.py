"""Intervals cover what they promise, pairing narrows them, and a seed repeats them."""

from __future__ import annotations

import numpy as np
import pytest

from foveal.evaluation.metrics.bootstrap import mean_difference_interval, mean_interval, perplexity_ratio_interval


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for trial in range(200):
        interval = mean_interval(rng.normal(5, 2, 60), resamples=400, seed=trial)
        hits += interval.low <= 5 <= interval.high
    assert 180 <= hits <= 199


def test_the_bounds_are_those_of_the_normal_approximation_for_many_items() -> None:
    values = np.random.default_rng(0).normal(0, 1, 4000)
    interval = mean_interval(values, resamples=4000)
    error = values.std() / np.sqrt(len(values))
    assert interval.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert interval.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_pairing_cancels_what_is_hard_for_both() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, 300)
    paired = mean_difference_interval(hard + 1, hard)
    assert paired.low == pytest.approx(1)
    assert paired.high == pytest.approx(1)
    apart = mean_difference_interval(hard + 1, rng.permutation(hard))
    assert apart.high - apart.low > 1


def test_the_same_seed_gives_the_same_bounds() -> None:
    values = [True, False, True, True]
    assert mean_interval(values, seed=3) == mean_interval(values, seed=3)
    assert mean_interval(values).estimate == 0.75


def test_perplexity_ratio_is_one_for_equal_models_and_weighs_windows_by_tokens() -> None:
    nll, tokens = [20.0, 3.0], [10, 1]
    assert perplexity_ratio_interval(nll, nll, tokens).high == 1
    ratio = perplexity_ratio_interval([21.0, 3.1], nll, tokens)
    assert ratio.estimate == pytest.approx(np.exp(1.1 / 11))
    assert ratio.low == pytest.approx(np.exp(0.1), rel=1e-6)


def test_pairs_of_different_length_are_refused() -> None:
    with pytest.raises(ValueError, match="same items"):
        mean_difference_interval([1, 2], [1])
    with pytest.raises(ValueError, match="at least one"):
        mean_interval([])
