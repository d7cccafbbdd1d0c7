"""Prompt tokens of text are learnt from usage, whatever the tokenizer and template."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from foveal.gateway.pricing.text_tokens import TextTokens


def _taught(per_message: float, per_char: float, fixed: float, count: int, noise: float = 0.05) -> TextTokens:
    source = random.Random(1)
    tokens = TextTokens()
    for _ in range(count):
        messages, chars = source.randint(1, 8), round(source.lognormvariate(6, 1.2))
        true = fixed + per_message * messages + per_char * chars * source.gauss(1, noise)
        tokens.learn(messages, chars, round(true))
    return tokens


@pytest.mark.parametrize(
    ("per_message", "per_char", "fixed"), [(4, 0.25, 3), (6, 0.33, 20), (5, 1.0, 3), (0, 0.6, 250), (4, 2.2, 0)]
)
def test_any_language_and_template_is_learnt_in_fifty_answers(
    per_message: float, per_char: float, fixed: float
) -> None:
    tokens = _taught(per_message, per_char, fixed, 50)

    for messages, chars in ((1, 40), (2, 500), (6, 4000), (3, 20_000)):
        true = fixed + per_message * messages + per_char * chars
        assert tokens.estimate(messages, chars) == pytest.approx(true, rel=0.1, abs=20)


def test_a_first_guess_is_near_english_text() -> None:
    assert TextTokens().estimate(2, 400) == pytest.approx(110, rel=0.3)


def test_one_answer_is_enough_to_leave_a_wrong_guess() -> None:
    tokens = TextTokens()
    tokens.learn(1, 1000, 1000)

    assert tokens.estimate(1, 1000) == pytest.approx(1000, rel=0.15)


def test_a_few_strange_texts_do_not_move_the_estimate() -> None:
    tokens = _taught(4, 0.25, 3, 100)
    for _ in range(3):
        tokens.learn(1, 1000, 30_000)

    assert tokens.estimate(2, 1000) == pytest.approx(261, rel=0.25)


def test_a_change_of_the_model_is_followed() -> None:
    tokens = _taught(4, 0.25, 3, 200)
    source = random.Random(2)
    for _ in range(200):
        chars = source.randint(50, 3000)
        tokens.learn(1, chars, round(10 + 0.5 * chars))

    assert tokens.estimate(1, 2000) == pytest.approx(1010, rel=0.15)


@pytest.mark.parametrize("spread", [0, 1])
@pytest.mark.parametrize("tokens_per_char", [0.05, 0.25, 1.0])
def test_thousands_of_alike_requests_do_not_unsettle_the_estimate(spread: int, tokens_per_char: float) -> None:
    """Directions in which requests do not differ must not wind up."""
    tokens, source = TextTokens(), random.Random(7)
    for _ in range(20_000):
        chars = 400 + source.randint(-spread, spread)
        tokens.learn(1, chars, round(20 + tokens_per_char * chars))

    for messages, chars in ((1, 400), (1, 600), (1, 200), (3, 400)):
        true = 20 + tokens_per_char * chars
        assert true / 2 <= tokens.estimate(messages, chars) <= 2 * true + 10
    assert tokens.estimate(1, 400) == pytest.approx(20 + tokens_per_char * 400, rel=0.02)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 100), st.integers(0, 10**7), st.integers(0, 10**7)), max_size=40))
def test_any_usage_leaves_an_estimate_that_grows_with_the_text(answers: list[tuple[int, int, int]]) -> None:
    tokens = TextTokens()
    for messages, chars, found in answers:
        tokens.learn(messages, chars, found)

    assert 1 <= tokens.estimate(1, 100) <= tokens.estimate(1, 10_000) <= 20_000 + 6 * 10_000
