"""KL of logits against the definition in extended precision."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.evaluation.metrics.divergence import kl_divergence, log_softmax


def test_a_known_pair_of_distributions() -> None:
    p, q = np.log([[0.5, 0.25, 0.25]]), np.log([[0.25, 0.5, 0.25]])
    assert kl_divergence(p + 7, q - 3) == pytest.approx([0.25 * np.log(2)])


@settings(deadline=None)
@given(st.integers(0, 10_000), st.floats(0.1, 60))
def test_against_the_definition_in_extended_precision(seed: int, spread: float) -> None:
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(0, spread, (3, 40)).astype(np.float32) for _ in range(2))
    p, q = (np.exp(x.astype(np.longdouble)) for x in (a, b))
    p, q = p / p.sum(-1, keepdims=True), q / q.sum(-1, keepdims=True)
    expected = (p * (np.log(p) - np.log(q))).sum(-1)
    np.testing.assert_allclose(kl_divergence(a, b), np.asarray(expected, dtype=np.float64), rtol=1e-9, atol=1e-12)


def test_a_difference_of_an_8_bit_model_is_not_lost_to_rounding() -> None:
    logits = np.random.default_rng(0).normal(0, 3, (4, 5000)).astype(np.float32)
    nudged = logits.copy()
    nudged[:, 0] += 0.01
    p0 = np.exp(log_softmax(logits))[:, 0]
    # KL of moving one logit by d is p(1-p)d^2/2 to second order.
    np.testing.assert_allclose(kl_divergence(logits, nudged), p0 * (1 - p0) * 1e-4 / 2, rtol=0.02)


def test_equal_is_zero_and_huge_logits_do_not_overflow() -> None:
    logits = np.array([[1e4, -1e4, 0.0]], dtype=np.float32)
    assert kl_divergence(logits, logits).tolist() == [0.0]


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="common position"):
        kl_divergence(np.zeros((2, 3)), np.zeros((2, 4)))
