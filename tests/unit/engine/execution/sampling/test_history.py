"""Counts of tokens that follow a growing output."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foveal.engine.execution.sampling.history import TokenHistory

tokens = st.lists(st.integers(0, 12), max_size=60)


@given(prompt=tokens, output=tokens, cuts=st.lists(st.integers(0, 60), max_size=5))
def test_counts_are_those_of_the_whole_output_however_it_grew(
    prompt: list[int], output: list[int], cuts: list[int]
) -> None:
    history = TokenHistory(prompt)
    for cut in sorted(cuts):
        history.update(output[:cut])
    history.update(output)
    counted = dict(zip(history.ids.tolist(), history.output_counts.tolist(), strict=True))
    assert counted == {token: Counter(output)[token] for token in {*prompt, *output}}


def test_an_output_that_became_shorter_is_refused() -> None:
    history = TokenHistory([])
    history.update([1, 2])
    with pytest.raises(ValueError, match="2 output tokens were counted, now there are 1"):
        history.update([1])
