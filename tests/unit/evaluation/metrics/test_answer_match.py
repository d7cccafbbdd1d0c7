"""Short and long answers are judged alike; listing every possible answer is not answering."""

from __future__ import annotations

import pytest

from foveal.evaluation.metrics.answer_match import is_right

COLOURS = ("red", "green", "blue", "gray")


@pytest.mark.parametrize(
    ("answer", "expected", "alternatives", "right"),
    [
        ("red", "red", COLOURS, True),
        ("Red.", "red", COLOURS, True),
        ("The circle is red.", "red", COLOURS, True),
        ("grey", "gray", COLOURS, True),
        ("red, green, blue or gray", "red", COLOURS, False),
        ("a red circle", "red circle", ("red", "circle", "red circle"), True),
        ("the red circle is", "red circle", ("red", "circle", "red circle"), True),
        ("two", "2", ("1", "2"), True),
        ("There are 2 circles.", "2", ("1", "2"), True),
        ("12", "2", ("1", "2"), False),
        ("1 or 2", "2", ("1", "2"), False),
        ("Yes, there is.", "yes", ("yes", "no"), True),
        ("No, yes", "yes", ("yes", "no"), False),
        ("There is no circle", "no", ("yes", "no"), True),
        ("", "red", COLOURS, False),
        ("scarlet", "red", COLOURS, False),
        ("anything", "", (), False),
    ],
)
def test_answers(answer: str, expected: str, alternatives: tuple[str, ...], right: bool) -> None:
    assert is_right(answer, expected, alternatives) is right
