"""Windows score each token once; perplexity weighs tokens, not windows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.evaluation.metrics.perplexity import perplexity, text_windows


@given(st.integers(2, 900), st.integers(2, 120), st.data())
def test_every_token_but_the_first_is_scored_once_with_enough_context(
    tokens: int, window: int, data: st.DataObject
) -> None:
    stride = data.draw(st.integers(1, window - 1))
    windows = text_windows(tokens, window, stride)
    scored = [t for w in windows for t in range(w.scored, w.end)]
    assert scored == list(range(1, tokens))
    for w in windows:
        assert w.end - w.start <= window
        assert w.start < w.scored
    for w in windows[1:]:
        assert w.scored - w.start >= window - stride


def test_a_long_window_counts_more_than_a_short_one() -> None:
    # 9 tokens at 1 nat and 1 token at 11 nats: 20 nats over 10 tokens, not the mean of e and e^11.
    assert perplexity([9.0, 11.0], [9, 1]) == pytest.approx(math.exp(2.0))


def test_a_uniform_model_has_the_vocabulary_as_its_perplexity() -> None:
    assert perplexity([math.log(50.0)] * 7, [1] * 7) == pytest.approx(50.0)


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (8, 8), (8, 0)])
def test_sizes_that_cannot_work_are_refused(window: int, stride: int) -> None:
    with pytest.raises(ValueError, match="stride"):
        text_windows(100, window, stride)


def test_nothing_scored_is_refused() -> None:
    with pytest.raises(ValueError, match="no tokens"):
        perplexity([], [])


def test_a_ruined_model_has_an_infinite_perplexity_and_is_no_error() -> None:
    assert perplexity([60_000.0], [1]) == math.inf
