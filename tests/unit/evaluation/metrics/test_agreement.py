"""Agreement of answers and of most likely tokens."""

from __future__ import annotations

import pytest

from foveal.evaluation.metrics.agreement import exact_agreement, top1_agreement


def test_answers_agree_word_for_word_or_not_at_all() -> None:
    assert exact_agreement(["red", "two", "no"], ["red", "2", "no"]) == pytest.approx(2 / 3)


def test_top1_counts_positions_not_prompts() -> None:
    assert top1_agreement([(1, 2, 3), (4,)], [(1, 9, 3), (4,)]) == 0.75


def test_different_prompts_are_refused() -> None:
    with pytest.raises(ValueError, match="same prompts"):
        exact_agreement(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="same prompts"):
        top1_agreement([], [])
