"""BLEU against numbers computed by hand, against its definition, and against sacrebleu where it is installed."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.evaluation.metrics.bleu import bleu, words

TOKENS = st.lists(st.sampled_from(["a", "b", "c", "d"]), min_size=1, max_size=9)


def test_the_papers_example_clips_repeated_words() -> None:
    # Papineni et al., example 2: "the" seven times against a reference with two of them: precision 2/7.
    candidate = ["the"] * 7
    references = [["the", "cat", "is", "on", "the", "mat"], ["there", "is", "a", "cat", "on", "the", "mat"]]
    assert bleu([candidate], [references], order=1) == pytest.approx(100 * 2 / 7)


def test_by_hand_with_a_brevity_penalty() -> None:
    candidate = ["the", "cat", "sat", "on", "the"]
    reference = ["the", "cat", "sat", "on", "the", "mat"]
    # All 5, 4, 3 and 2 n-grams match; penalty exp(1 - 6/5).
    assert bleu([candidate], [[reference]]) == pytest.approx(100 * math.exp(1 - 6 / 5))


def test_by_hand_over_two_sentences() -> None:
    candidates = [["a", "red", "circle", "and", "a", "blue", "star"], ["a", "green", "square"]]
    references = [[["a", "red", "circle", "and", "a", "blue", "square"]], [["a", "green", "square"]]]
    # unigrams 9/10, bigrams 7/8, trigrams 5/6, fourgrams 3/4; equal lengths.
    expected = 100 * (9 / 10 * 7 / 8 * 5 / 6 * 3 / 4) ** 0.25
    assert bleu(candidates, references) == pytest.approx(expected)


def test_identical_is_100_and_foreign_is_0() -> None:
    text = words("3 shapes: a red circle, a blue star and a green square")
    assert bleu([text], [[text]]) == pytest.approx(100.0)
    assert bleu([["x"] * 9], [[text]]) == 0.0


def test_the_nearest_reference_length_counts_and_of_two_the_shorter() -> None:
    candidate = ["a", "b", "c", "d", "e"]
    # Lengths 4 and 6 are equally near: 4 counts, so there is no penalty.
    assert bleu([candidate], [[["a", "b", "c", "d", "e", "f"], ["a", "b", "c", "d"]]]) == pytest.approx(100.0)


def test_smoothing_by_hand() -> None:
    candidate, reference = ["a", "b", "c", "x"], ["a", "b", "c", "d"]
    # Matches 3/4, 2/3, 1/2, 0/1.
    assert bleu([candidate], [[reference]]) == 0.0
    assert bleu([candidate], [[reference]], smoothing="add-one") == pytest.approx(
        100 * (3 / 4 * 3 / 4 * 2 / 3 * 1 / 2) ** 0.25
    )
    assert bleu([candidate], [[reference]], smoothing="exponential") == pytest.approx(
        100 * (3 / 4 * 2 / 3 * 1 / 2 * 1 / 2) ** 0.25
    )


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_order_of_sentences_does_not_matter_and_the_range_holds(pairs: list[tuple[list[str], list[str]]]) -> None:
    score = bleu([a for a, _ in pairs], [[b] for _, b in pairs], smoothing="add-one")
    turned = bleu([a for a, _ in pairs[::-1]], [[b] for _, b in pairs[::-1]], smoothing="add-one")
    assert score == pytest.approx(turned)
    assert 0 <= score <= 100 + 1e-9


@given(st.lists(st.tuples(TOKENS, TOKENS), min_size=1, max_size=5))
def test_sacrebleu_agrees(pairs: list[tuple[list[str], list[str]]]) -> None:
    sacrebleu = pytest.importorskip("sacrebleu")
    hypotheses, references = [" ".join(a) for a, _ in pairs], [" ".join(b) for _, b in pairs]
    for ours, theirs in (("none", "none"), ("exponential", "exp")):
        wanted = sacrebleu.corpus_bleu(hypotheses, [references], smooth_method=theirs, tokenize="none").score
        found = bleu([a for a, _ in pairs], [[b] for _, b in pairs], smoothing=ours)  # type: ignore[arg-type]
        assert found == pytest.approx(wanted, abs=1e-6)


def test_words_split_punctuation_and_ignore_case() -> None:
    assert words("3 shapes: a Red circle, ok?") == ["3", "shapes", ":", "a", "red", "circle", ",", "ok", "?"]


def test_candidates_without_references_are_refused() -> None:
    with pytest.raises(ValueError, match="reference"):
        bleu([["a"]], [])
